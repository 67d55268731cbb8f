/** As little of a daemon as can be asked, behind the app's network; what is signed is written out once more. */

import { Buffer } from "node:buffer";
import { createHash, createHmac, hkdfSync, randomBytes } from "node:crypto";
import type { Block, Event, Experiment, Hello, Planned } from "../src/protocol";
import { network, type Reply } from "./app/obsidian";

const sha = (text: string | Buffer) => createHash("sha256").update(text).digest("hex");
const sign = (key: Buffer, ...lines: string[]) => createHmac("sha256", key).update(lines.join("\n")).digest("hex");
const derive = (code: Buffer, salt: string, info: string) =>
  Buffer.from(hkdfSync("sha256", code, Buffer.from(salt, "hex"), info, 32));

export const CODE = "MFRG-GZDF-MZTW-Q2LK-NNWG-23TP-OA";
export const MACHINE = "desk";

/** A block of a plan; what is not said is as for a new block. */
export function block(said: Partial<Block>): Block {
  const nothing = { problems: [], fields: {}, run: null, last: null, edit: null };
  const first = { id: "pentagon", experiment: "superposition", title: "A pentagon", start: 1, end: 3, sha256: "" };
  return { ...first, state: "missing", why: "", ...nothing, ...said };
}

export class Daemon {
  key: Buffer = randomBytes(32);
  readonly device = "d".repeat(32);
  readonly asked: { method: string; target: string; body: unknown }[] = [];
  port = 4711;
  trusted = true;
  byHand = false;
  /** What is said of a note's text. */
  plan: (path: string, text: string) => Partial<Planned> = () => ({});
  /** Status and answer of a request that is not as usual. */
  answer: (method: string, target: string, body: unknown) => [number, object] | null = () => null;
  /** The catalogue. */
  experiments: Record<string, Experiment> = {};
  models: string[] = [];
  gone = false;
  private count = 0;
  private events: Event[] = [];
  private waiting: (() => void)[] = [];
  private epoch = "0".repeat(16);

  constructor() {
    network.send = (request) => this.sent(request as unknown as Sent);
  }

  /** What the vault says of it. */
  get presence(): Record<string, string> {
    const said = { protocol: 1, port: this.port, pid: 1, machine: MACHINE, since: 0, beat: Math.floor(Date.now() / 1000) };
    return { [`.vaultlab/daemon-${MACHINE}.json`]: JSON.stringify(said) };
  }

  /** The targets that were asked for, with what was sent. */
  requests(target: string): unknown[] {
    return this.asked.filter((one) => one.target.startsWith(target)).map((one) => one.body);
  }

  tell(event: Partial<Event> & Pick<Event, "kind">): void {
    const nothing = { path: null, id: null, run: null, place: null, why: "", phase: "", done: null, total: null };
    const rest = { eta_s: null, memory_bytes: null, problem: null, edit: null };
    this.count++;
    this.events.push({ number: `${this.epoch}.${this.count}`, ...nothing, ...rest, ...event });
    for (const wake of this.waiting.splice(0)) wake();
  }

  /** It ends, and another one begins: nothing that happened before is known. */
  restart(): void {
    this.epoch = randomBytes(8).toString("hex");
    this.count = 0;
    this.events = [];
    for (const wake of this.waiting.splice(0)) wake();
  }

  private async sent({ url, method, headers, body = "" }: Sent): Promise<Reply> {
    const { port, pathname, search } = new URL(url);
    if (this.gone || Number(port) !== this.port) throw new Error("net::ERR_CONNECTION_REFUSED");
    const target = pathname + search;
    const said = [method, target, headers["X-Vaultlab-Device"], headers["X-Vaultlab-Time"], headers["X-Vaultlab-Nonce"]];
    const lines = said.map((word) => word ?? "");
    const content: unknown = body ? JSON.parse(body) : null;
    const own = pathname === "/v1/pair" ? derive(code(), lines[4] ?? "", "vaultlab 1 pair") : this.key;
    if (headers["X-Vaultlab-Mac"] !== sign(own, "vaultlab 1 request", ...lines, sha(body))) return refused(401);
    this.asked.push({ method, target, body: content });
    const [status, answer, key] = await this.answered(method, pathname, search, content, lines[4] ?? "");
    if (this.gone) throw new Error("net::ERR_CONNECTION_RESET");
    const text = JSON.stringify(answer);
    const mac = sign(key, `vaultlab 1 answer ${status}`, ...lines, sha(text));
    return { status, headers: { "x-vaultlab-mac": mac }, text };
  }

  private async answered(
    method: string,
    path: string,
    search: string,
    body: unknown,
    nonce: string,
  ): Promise<[number, object, Buffer]> {
    const other = this.answer(method, path, body);
    if (other) return [...other, this.key];
    if (path === "/v1/pair") {
      const ours = randomBytes(16).toString("hex");
      this.key = derive(code(), nonce + ours, `vaultlab 1 key ${this.device}`);
      return [200, { device: this.device, nonce: ours }, this.key];
    }
    if (path === "/v1/hello") return [200, this.hello(), this.key];
    if (path === "/v1/experiments") return [200, { experiments: this.experiments, broken: {} }, this.key];
    if (path === "/v1/events") return [200, await this.happened(new URLSearchParams(search)), this.key];
    if (path === "/v1/plan") {
      const { path: note, text } = body as { path: string; text: string };
      return [200, { takes_part: true, problems: [], blocks: [], ...this.plan(note, text) }, this.key];
    }
    if (path === "/v1/runs") return [200, { run: "1", place: 1, why: "" }, this.key];
    if (path === "/v1/pace") this.byHand = (body as { by_hand: boolean }).by_hand;
    if (path === "/v1/trust") this.trusted = (body as { trusted: boolean }).trusted;
    return [200, {}, this.key];
  }

  private hello(): Hello {
    const queue = { queued: 0, running: null };
    const last = `${this.epoch}.${this.count}`;
    const who = { protocol: 1, version: "0.1.0", epoch: this.epoch, last, vault: "Notes", machine: MACHINE };
    return { ...who, devices: ["cpu"], models: this.models, queue, trusted: this.trusted, trust: "It runs here.", by_hand: this.byHand, notices: [] };
  }

  private async happened(query: URLSearchParams): Promise<object> {
    const [epoch, seen] = (query.get("after") ?? "").split(".");
    const fresh = () => this.events.filter((event) => Number(event.number.split(".")[1]) > Number(seen));
    if (epoch === this.epoch && !fresh().length) await new Promise<void>((wake) => this.waiting.push(wake));
    const missed = epoch !== this.epoch;
    return { last: `${this.epoch}.${this.count}`, missed, events: missed ? [] : fresh() };
  }
}

interface Sent {
  url: string;
  method: string;
  headers: Record<string, string>;
  body?: string;
}

function code(): Buffer {
  return Buffer.from("abcdefghijklmnop");
}

function refused(status: number): Reply {
  return { status, headers: {}, text: JSON.stringify({ message: "Refused.", hint: "", line: null, field: null }) };
}
