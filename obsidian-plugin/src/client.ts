/** One daemon, asked over loopback. Everything is signed both ways: a stranger on the port learns and fakes nothing. */

import { requestUrl } from "obsidian";
import { PROTOCOL, type Hello, type Paired, type Problem } from "./protocol";
import { decode, derive, hex, mac, nonce, same, sha256, unhex } from "./sign";

const LABEL = "vaultlab 1";
const NOBODY = "0".repeat(32);

/** What this device signs with; kept in the app's secret storage. */
export interface Keys {
  device: string;
  key: string;
}

/** Nobody answers on that port. */
export class Unreachable extends Error {}

/** Whoever answers has not proved that it is our daemon: another program, another key. */
export class Stranger extends Error {
  constructor(readonly status: number) {
    super(`An answer (${status}) that our daemon has not signed.`);
  }
}

/** Our daemon says no, and why. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly problem: Problem,
  ) {
    super(problem.message);
  }
}

interface Request {
  method: string;
  target: string;
  body: string;
  device: string;
  key: Uint8Array<ArrayBuffer>;
  time: number;
  nonce: string;
}

interface Reply {
  status: number;
  text: string;
  mac: string;
}

export class Client {
  private proved = false;

  constructor(
    readonly port: number,
    private readonly keys: Keys,
  ) {}

  /** Who is there, and that it has our key: whatever else is asked, this is asked first. */
  async hello(): Promise<Hello> {
    const hello = (await this.said("GET", "/v1/hello", "")) as Hello;
    this.proved = true;
    return hello;
  }

  /** Ask for `target`; throws Unreachable, Stranger or Refusal. */
  async ask<Answer>(method: "GET" | "POST" | "DELETE", target: string, body?: object): Promise<Answer> {
    if (!this.proved) await this.hello();
    return (await this.said(method, target, body ? JSON.stringify(body) : "")) as Answer;
  }

  private async said(method: string, target: string, body: string): Promise<unknown> {
    const { device, key } = this.keys;
    const request = { method, target, body, device, key: unhex(key), time: Date.now(), nonce: nonce() };
    const reply = await send(this.port, request);
    return await opened(request, reply, request.key);
  }
}

/** Exchange a code for keys: the daemon that knows it too is ours. Null where the code is none at all. */
export async function pair(port: number, code: string, name: string): Promise<Keys | null> {
  const secret = decode(code);
  if (!secret) return null;
  const ours = nonce();
  const key = await derive(secret, ours, `${LABEL} pair`);
  const body = JSON.stringify({ name });
  const request = { method: "POST", target: "/v1/pair", body, device: NOBODY, key, time: Date.now(), nonce: ours };
  const reply = await send(port, request);
  if (reply.status !== 200) throw new Stranger(reply.status);
  const said = JSON.parse(reply.text) as Partial<Paired>;
  const forms = [said.device, said.nonce].every((word) => /^[0-9a-f]{32}$/.test(word ?? ""));
  if (!forms || !said.device) throw new Stranger(reply.status);
  const shared = await derive(secret, ours + said.nonce, `${LABEL} key ${said.device}`);
  await opened(request, reply, shared);
  return { device: said.device, key: hex(shared) };
}

async function send(port: number, request: Request): Promise<Reply> {
  const { method, target, body, device, time } = request;
  const words = [method, target, device, String(time), request.nonce, await sha256(body)];
  const headers: Record<string, string> = {
    "X-Vaultlab-Protocol": String(PROTOCOL),
    "X-Vaultlab-Device": device,
    "X-Vaultlab-Time": String(time),
    "X-Vaultlab-Nonce": request.nonce,
    "X-Vaultlab-Mac": await mac(request.key, [`${LABEL} request`, ...words]),
  };
  if (body) headers["Content-Type"] = "application/json";
  const url = `http://127.0.0.1:${port}${target}`;
  try {
    const answer = await requestUrl({ url, method, headers, throw: false, ...(body ? { body } : {}) });
    const found = Object.entries(answer.headers).find(([name]) => name.toLowerCase() === "x-vaultlab-mac");
    return { status: answer.status, text: answer.text, mac: found?.[1] ?? "" };
  } catch {
    throw new Unreachable(`Nobody answers on port ${port}.`);
  }
}

/** What a reply says, if our daemon said it to this very request. */
async function opened(request: Request, reply: Reply, key: Uint8Array<ArrayBuffer>): Promise<unknown> {
  const { method, target, device, time } = request;
  const words = [method, target, device, String(time), request.nonce, await sha256(reply.text)];
  const meant = await mac(key, [`${LABEL} answer ${reply.status}`, ...words]);
  if (!same(meant, reply.mac)) throw new Stranger(reply.status);
  const said: unknown = JSON.parse(reply.text);
  if (reply.status !== 200) throw new Refusal(reply.status, said as Problem);
  return said;
}
