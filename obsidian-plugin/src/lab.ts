/** What is known of every note on the screen: the daemon's plan of it, and what has happened to its runs since. */

import { Refusal, type Client } from "./client";
import { Link, type Listener, type State } from "./link";
import type { Device } from "./device";
import type { Notes } from "./notes";
import type { Block, Edit, Event, Experiments, Planned, Problem, Queued } from "./protocol";

/** A plan, and the very text that it is of. */
export interface Known {
  text: string;
  planned: Planned;
}

interface Note {
  known: Known | null;
  problem: Problem | null;
  /** Something has happened since: the same text may be planned otherwise now. */
  dated: boolean;
  asking: Promise<void> | null;
  again: boolean;
}

const ENDED = ["done", "failed", "cancelled", "superseded"];
const NO_NOTE: Problem = {
  message: "Blocks run in notes, and this is none.",
  hint: "On a canvas, put it in a note and show that note.",
  line: null,
  field: null,
};

export class Lab implements Listener {
  readonly link: Link;
  experiments: Experiments | null = null;
  /** Is asked to make an edit in a note. */
  edit: (edit: Edit) => Promise<void> = () => Promise.resolve();
  private readonly notes = new Map<string, Note>();
  private readonly runs = new Map<string, Event>();
  private readonly watchers = new Map<string | null, Set<() => void>>();

  constructor(
    device: Device,
    readonly desk: Notes,
    viewer: boolean,
  ) {
    this.link = new Link(device, this, viewer);
  }

  /** Be called when anything of this note changes, or of any (null); the answer ends it. */
  watch(path: string | null, changed: () => void): () => void {
    const here = this.watchers.get(path) ?? new Set();
    this.watchers.set(path, here.add(changed));
    if (path !== null) void this.look(path);
    return () => {
      here.delete(changed);
      if (!here.size && this.watchers.get(path) === here) this.watchers.delete(path);
    };
  }

  watched(path: string): boolean {
    return this.watchers.has(path);
  }

  known(path: string): Known | null {
    return this.notes.get(path)?.known ?? null;
  }

  /** Why a note could not be planned. */
  problem(path: string): Problem | null {
    return path.endsWith(".md") ? (this.notes.get(path)?.problem ?? null) : NO_NOTE;
  }

  /** The last thing that happened to a block's run, while it waits or runs. */
  event(path: string, id: string): Event | null {
    return this.runs.get(key(path, id)) ?? null;
  }

  /** Every run that waits or is under way, as far as it has been heard of. */
  get underway(): Event[] {
    return [...this.runs.values()];
  }

  /** Have a note planned, if it or anything it depends on has changed. */
  async look(path: string): Promise<void> {
    if (!path.endsWith(".md")) return;
    const note = this.note(path);
    note.again = note.asking !== null;
    note.asking ??= this.asked(path, note).finally(() => (note.asking = null));
    await note.asking;
  }

  /** Have a note planned, whatever is known of it. */
  async relook(path: string): Promise<void> {
    this.note(path).dated = true;
    await this.look(path);
  }

  /** Run a block as it stands, ahead of the rest. */
  async run(path: string, id: string): Promise<Queued> {
    await this.desk.save(path);
    try {
      return await this.queued(path, id);
    } catch (error) {
      if (!(error instanceof Refusal && error.status === 409)) throw error;
      return await this.queued(path, id); // it was saved a moment later than we looked
    }
  }

  async cancel(run: string): Promise<void> {
    await this.daemon.ask("DELETE", `/v1/runs/${run}`);
  }

  /** The daemon; throws Refusal with the sentence to show where there is none. */
  get daemon(): Client {
    const { daemon } = this.link;
    if (daemon) return daemon;
    throw new Refusal(0, { message: "No daemon answers on this machine.", hint: "", line: null, field: null });
  }

  changed(state: State, fresh: boolean): void {
    if (fresh || state.is !== "connected") {
      this.runs.clear();
      for (const note of this.notes.values()) note.dated = true;
    }
    if (fresh) void this.begun();
    this.tell([...this.watchers.keys()]);
  }

  /** Say whether this vault is trusted on this machine. */
  async trust(trusted: boolean): Promise<void> {
    await this.daemon.ask("POST", "/v1/trust", { trusted });
    await this.link.greet();
  }

  /** Say whether blocks run only when they are asked to. */
  async pace(by_hand: boolean): Promise<void> {
    await this.daemon.ask("POST", "/v1/pace", { by_hand });
    await this.link.greet();
  }

  happened(events: readonly Event[], missed: boolean): void {
    const touched = new Set(events.map((event) => event.path).filter((path) => path !== null));
    for (const event of events) this.heard(event);
    if (missed) {
      this.runs.clear();
      for (const path of this.notes.keys()) this.date(path);
    }
    for (const event of events) if (event.path !== null && event.kind !== "running") this.date(event.path);
    this.tell([null, ...touched]);
  }

  private heard(event: Event): void {
    if (event.kind === "edit" && event.edit) void this.edit(event.edit);
    if (event.path === null || event.id === null || event.run === null) return;
    if (ENDED.includes(event.kind)) this.runs.delete(key(event.path, event.id));
    else if (event.kind !== "edit") this.runs.set(key(event.path, event.id), event);
  }

  private async begun(): Promise<void> {
    for (const path of this.watchers.keys()) if (path !== null) void this.look(path);
    try {
      this.experiments = await this.daemon.ask<Experiments>("GET", "/v1/experiments");
      this.tell([...this.watchers.keys()]);
    } catch {
      this.link.retry(); // it has gone again: the link finds out by itself, and says so
    }
  }

  private async asked(path: string, note: Note): Promise<void> {
    do {
      note.again = false;
      const { daemon } = this.link;
      const text = daemon && (await this.desk.text(path));
      if (!daemon || text === null || (note.known?.text === text && !note.dated)) continue;
      note.dated = false;
      try {
        note.known = { text, planned: await daemon.ask<Planned>("POST", "/v1/plan", { path, text }) };
        note.problem = null;
        for (const { edit } of note.known.planned.blocks) if (edit) void this.edit(edit);
      } catch (error) {
        note.dated = true;
        note.problem = error instanceof Refusal ? error.problem : null;
      }
      this.tell([path]);
    } while (note.again);
  }

  private async queued(path: string, id: string): Promise<Queued> {
    await this.relook(path);
    const block = this.block(path, id);
    return await this.daemon.ask("POST", "/v1/runs", { path, id, block_sha256: block.sha256 });
  }

  private block(path: string, id: string): Block {
    const block = this.known(path)?.planned.blocks.find((one) => one.id === id);
    if (block) return block;
    throw new Refusal(0, { message: `No block of this note has the id “${id}”.`, hint: "", line: null, field: null });
  }

  private date(path: string): void {
    this.note(path).dated = true;
    if (this.watchers.has(path)) void this.look(path);
  }

  private note(path: string): Note {
    const note = this.notes.get(path) ?? { known: null, problem: null, dated: true, asking: null, again: false };
    this.notes.set(path, note);
    return note;
  }

  private tell(paths: readonly (string | null)[]): void {
    for (const path of paths) for (const changed of this.watchers.get(path) ?? []) changed();
  }
}

function key(path: string, id: string): string {
  return `${path}\n${id}`;
}
