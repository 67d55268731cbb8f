/** The one line that the daemon puts under a block: made only in the very text that it was computed from. */

import { isolateHistory } from "@codemirror/commands";
import { Transaction } from "@codemirror/state";
import type { EditorView } from "@codemirror/view";
import type { TFile } from "obsidian";
import { Refusal } from "./client";
import type { Lab } from "./lab";
import { MARK, plain } from "./notes";
import type { Edit, Insertion, Outcome } from "./protocol";
import { sha256 } from "./sign";

/** So long a letter may be composed; so long a file must have been left alone. */
const COMPOSING_MS = 10_000;
const QUIET_MS = 5000;
const LOOK_MS = 100;

export class Edits {
  private readonly doing = new Set<string>();

  constructor(private readonly lab: Lab) {}

  /** Make an edit and tell the daemon what became of it; one at a time. */
  async make(edit: Edit): Promise<void> {
    if (this.doing.has(edit.id)) return;
    this.doing.add(edit.id);
    try {
      const outcome = await this.made(edit);
      if (!outcome) return;
      await this.say(edit, outcome);
      // The note has moved on: what the daemon would do to it as it is now comes with its plan.
      if (outcome === "conflict") await this.lab.relook(edit.path);
    } finally {
      this.doing.delete(edit.id);
    }
  }

  /** What became of it; null where it is not wanted any more. */
  private async made(edit: Edit): Promise<Outcome | null> {
    if (!(await this.atRest(edit.path))) return "deferred";
    const place = (await this.inEditor(edit)) ?? (await this.onDisk(edit));
    if (typeof place === "string") return place;
    try {
      await this.say(edit, "taken");
    } catch (error) {
      if (error instanceof Refusal) return null;
      throw error;
    }
    return await place();
  }

  /** How to make it in the note's editor; null where it is to be made on the disk. */
  private async inEditor(edit: Edit): Promise<Outcome | (() => Promise<Outcome>) | null> {
    const views = this.lab.desk.editors(edit.path);
    const [text, ...others] = new Set(views.map((view) => view.state.doc.toString()));
    if (text === undefined) return null;
    if (others.length) return "deferred"; // two panes that the app has not yet brought together
    // An editor knows no byte order mark and one line end: a note that has others is written where they are.
    if ((await sha256(text)) !== edit.base_sha256) return (await this.lab.desk.text(edit.path)) === text ? "conflict" : null;
    return async () => {
      const [view] = this.lab.desk.editors(edit.path);
      if (!view || view.composing) return "deferred"; // somebody typed or left while we asked
      if (view.state.doc.toString() !== text) return "conflict";
      insert(view, edit);
      await this.lab.desk.save(edit.path);
      return "applied";
    };
  }

  private async onDisk(edit: Edit): Promise<Outcome | (() => Promise<Outcome>)> {
    const { desk } = this.lab;
    const file = desk.file(edit.path);
    if (!file) return "conflict";
    const text = await desk.saved(file);
    if ((await sha256(text)) !== edit.base_sha256) return "conflict";
    if (Date.now() - file.stat.mtime < QUIET_MS) return "deferred"; // somebody else may be writing there
    return async () => ((await this.write(file, text, edit)) ? "applied" : "conflict");
  }

  /** Make an insertion that its author has just asked for; false where the text is another one by now. */
  async put(path: string, insertion: Insertion): Promise<boolean> {
    const { desk } = this.lab;
    const text = await desk.text(path);
    if (text === null || (await sha256(text)) !== insertion.base_sha256) return false;
    const [view] = desk.editors(path);
    if (view?.composing) return false;
    if (view?.state.doc.toString() === text) {
      insert(view, insertion);
      await desk.save(path);
      return true;
    }
    const file = desk.file(path);
    return file !== null && (await this.write(file, text, insertion));
  }

  /** Write on the disk, if this very text stands there still and no editor has another. */
  private async write(file: TFile, text: string, insertion: Insertion): Promise<boolean> {
    const { desk } = this.lab;
    let done = false;
    await desk.app.vault.process(file, (read) => {
      const now = text.startsWith(MARK) && !read.startsWith(MARK) ? MARK + read : read; // the app reads over it
      const typed = desk.editors(file.path).some((view) => view.state.doc.toString() !== plain(text));
      done = now === text && !typed;
      return done ? spliced(text, insertion) : now;
    });
    return done;
  }

  private async say({ id }: Edit, outcome: Outcome): Promise<void> {
    await this.lab.daemon.ask("POST", `/v1/edits/${id}`, { outcome });
  }

  /** Whether nobody is in the middle of a composed letter, at the latest after ten seconds. */
  private async atRest(path: string): Promise<boolean> {
    for (const until = Date.now() + COMPOSING_MS; Date.now() < until; ) {
      if (!this.lab.desk.editors(path).some((view) => view.composing)) return true;
      await new Promise((resolve) => window.setTimeout(resolve, LOOK_MS));
    }
    return false;
  }
}

/** One undo step. A cursor at the beginning of a line stays with that line. */
function insert(view: EditorView, { offset: from, insert }: Insertion): void {
  const changes = view.state.changes({ from, insert });
  const after = view.state.sliceDoc(from - 1, from) === "\n";
  const selection = view.state.selection.map(changes, after ? 1 : -1);
  view.dispatch({ changes, selection, annotations: [isolateHistory.of("full"), Transaction.userEvent.of("input")] });
}

function spliced(text: string, { offset, insert }: Insertion): string {
  return text.slice(0, offset) + insert + text.slice(offset);
}
