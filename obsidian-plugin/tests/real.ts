/** The real daemon on a vault of the test's, with folders of its own for everything that it keeps. */

import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { env } from "node:process";
import { setTimeout as pause } from "node:timers/promises";
import type { Disk, Reply } from "./app/obsidian";

const ROOT = resolve("..");
const PYTHON = join(ROOT, ".venv/bin/python");
const MAIN = "from vaultlab.cli import main; main()";
const PATIENCE_MS = 60_000;

export class Real {
  private daemon: ChildProcess | null = null;
  private log = "";

  private constructor(
    private readonly home: string,
    readonly vault: string,
    private readonly cache: string,
  ) {}

  /** A vault with these notes. `cache` is of several: what experiments there are is found out once. */
  static async vault(notes: Record<string, string>, cache?: string): Promise<Real> {
    const home = await mkdtemp(join(tmpdir(), "vaultlab-"));
    const real = new Real(home, join(home, "Notes"), cache ?? join(home, "cache"));
    for (const [path, text] of Object.entries(notes)) await real.write(path, text);
    return real;
  }

  /** Watch the vault; `before` is Python that is run first. */
  async watch(before = "", ...options: string[]): Promise<void> {
    const code = before ? `${before}; ${MAIN}` : MAIN;
    this.daemon = spawn(PYTHON, ["-c", code, "watch", this.vault, ...options], { env: this.env, stdio: "pipe" });
    for (const out of [this.daemon.stdout, this.daemon.stderr]) out?.on("data", (text) => (this.log += String(text)));
    for (const until = Date.now() + PATIENCE_MS; ; ) {
      if (this.daemon.exitCode !== null || Date.now() > until) throw new Error(`no daemon:\n${this.log}`);
      if ((await this.disk.list(".vaultlab")).some((path) => /\/daemon-[a-z0-9-]+\.json$/.test(path))) return;
      await pause(50);
    }
  }

  /** What the daemon says, once it has. */
  async said(words: RegExp): Promise<string> {
    for (const until = Date.now() + PATIENCE_MS; Date.now() < until; await pause(50)) {
      const [, found] = words.exec(this.log) ?? [];
      if (found !== undefined) return found;
    }
    throw new Error(`it has not said ${String(words)}:\n${this.log}`);
  }

  /** What a command prints. */
  command(...words: string[]): string {
    const done = spawnSync(PYTHON, ["-c", MAIN, ...words, this.vault], { env: this.env, encoding: "utf8" });
    if (done.status !== 0) throw new Error(done.stderr + done.stdout);
    return done.stdout.trim();
  }

  async stop(): Promise<void> {
    const { daemon } = this;
    this.daemon = null;
    if (!daemon || daemon.exitCode !== null) return;
    const ended = new Promise((end) => daemon.once("exit", end));
    daemon.kill("SIGTERM");
    await ended;
  }

  async remove(): Promise<void> {
    await this.stop();
    await rm(this.home, { recursive: true, force: true });
  }

  async read(path: string): Promise<string> {
    return await readFile(join(this.vault, path), "utf8");
  }

  async write(path: string, text: string): Promise<void> {
    await mkdir(dirname(join(this.vault, path)), { recursive: true });
    await writeFile(join(this.vault, path), text);
  }

  get disk(): Disk {
    return {
      list: async (folder) => {
        const found = await readdir(join(this.vault, folder), { withFileTypes: true, recursive: true }).catch(() => []);
        return found
          .filter((one) => one.isFile())
          .map((one) => relative(this.vault, join(one.parentPath, one.name)))
          .filter((path) => folder || !path.split("/").some((part) => part.startsWith(".")));
      },
      read: (path) => this.read(path).catch(() => null),
      write: (path, text) => this.write(path, text),
    };
  }

  private get env(): Record<string, string | undefined> {
    const own = { XDG_STATE_HOME: join(this.home, "state"), XDG_CONFIG_HOME: join(this.home, "config"), XDG_CACHE_HOME: this.cache };
    return { ...env, ...own, PYTHONPATH: ROOT, OMP_NUM_THREADS: "1" };
  }
}

/** What the app does with `requestUrl`: no page's rules, no page's origin. */
export async function send(asked: Record<string, unknown>): Promise<Reply> {
  const { url, method, headers, body } = asked as { url: string; method: string; headers: object; body?: string };
  return await new Promise((answer, fail) => {
    const sent = request(url, { method, headers: { ...headers }, agent: false }, (reply) => {
      let text = "";
      reply.setEncoding("utf8");
      reply.on("data", (part: string) => (text += part));
      reply.on("error", fail);
      const said = Object.entries(reply.headers).map(([name, value]) => [name, String(value)]);
      reply.on("end", () => answer({ status: reply.statusCode ?? 0, headers: Object.fromEntries(said) as Record<string, string>, text }));
    });
    sent.on("error", fail);
    sent.end(body);
  });
}
