/** Everything that can be done from the command palette. None has a hotkey until its user gives it one. */

import { MarkdownView, Notice, TFile, type Editor, type Plugin } from "obsidian";
import { Refusal } from "./client";
import type { Edits } from "./edits";
import { fenceAt, fences } from "./fence";
import { Picker } from "./insert";
import type { Lab } from "./lab";
import type { Block, Problem } from "./protocol";
import { Question } from "./question";

/** A block, and the note that it is in. */
type Asked = [path: string, block: Block];

const STALE = ["missing", "stale", "outdated", "reread", "failed"];

export function addCommands(plugin: Plugin, lab: Lab, edits: Edits, pair: () => void): void {
  const inBlock = (id: string, name: string, act: (path: string, block: Block) => Promise<void>) =>
    plugin.addCommand({
      id,
      name,
      editorCheckCallback: (checking, editor, info) => {
        const path = info.file?.path;
        const there = path !== undefined && fenceAt(fences(editor.getValue().split("\n")), editor.getCursor().line + 1);
        if (there && !checking) void said(atCursor(lab, path, editor).then((block) => act(path, block)));
        return Boolean(there);
      },
    });
  const inNote = (id: string, name: string, act: (path: string) => Promise<void>) =>
    plugin.addCommand({
      id,
      name,
      checkCallback: (checking) => {
        const file = plugin.app.workspace.getActiveFile();
        if (file?.extension !== "md") return false;
        if (!checking) void said(act(file.path));
        return true;
      },
    });
  inBlock("run-block", "Run the block at the cursor", (path, block) => ran(lab, [[path, block]]));
  inBlock("cancel-block", "Cancel the run of the block at the cursor", async (_, block) => {
    if (block.run) await lab.cancel(block.run);
    else new Notice("This block is not running.");
  });
  inBlock("open-result", "Open the result of the block at the cursor", async (path, block) => {
    if (block.last) await plugin.app.workspace.openLinkText(block.last.note, path);
    else new Notice("This block has no result yet.");
  });
  inNote("run-note", "Run all blocks of this note", async (path) =>
    ran(lab, (await planned(lab, path)).map((block) => [path, block])),
  );
  plugin.addCommand({
    id: "run-stale",
    name: "Run everything that is out of date",
    callback: () => void said(everythingStale(lab)),
  });
  plugin.addCommand({
    id: "cancel-all",
    name: "Cancel everything that runs or waits",
    callback: () => void said(cancelled(lab)),
  });
  plugin.addCommand({
    id: "insert-experiment",
    name: "Insert an experiment",
    editorCallback: (editor, info) => {
      if (lab.experiments) new Picker(plugin.app, lab, { editor, info, edits }).open();
      else new Notice("What experiments there are, the daemon knows: connect to it first.");
    },
  });
  plugin.addCommand({ id: "pair", name: "Pair this device with its daemon", callback: pair });
  plugin.addCommand({ id: "reconnect", name: "Connect to the daemon again", callback: () => lab.link.retry() });
}

/** Say what went wrong, in the daemon's words where it has any. */
export async function said(doing: Promise<void>): Promise<void> {
  try {
    await doing;
  } catch (error) {
    if (error instanceof Refusal) new Notice([error.problem.message, error.problem.hint].filter(Boolean).join("\n"));
    else new Notice("The daemon did not answer.");
  }
}

async function planned(lab: Lab, path: string): Promise<readonly Block[]> {
  await lab.look(path);
  void lab.daemon; // says so if there is none
  const problem = lab.problem(path);
  if (problem) throw new Refusal(0, problem);
  return lab.known(path)?.planned.blocks ?? [];
}

async function atCursor(lab: Lab, path: string, editor: Editor): Promise<Block> {
  const line = editor.getCursor().line + 1;
  const block = (await planned(lab, path)).find((one) => one.start <= line && line <= one.end);
  if (block) return block;
  throw new Refusal(0, { message: "What stands here is plain text to vaultlab.", hint: "", line, field: null });
}

/** Run these blocks one after the other; the first that cannot is said, the others run. */
async function ran(lab: Lab, asked: readonly Asked[]): Promise<void> {
  let refused: Error | null = null;
  for (const [path, { id, problems, title }] of asked) {
    try {
      const [problem] = problems;
      if (problem || !id) throw new Refusal(0, problem ?? { message: `${title} has no id yet.`, hint: "", line: null, field: null });
      await lab.run(path, id);
    } catch (error) {
      refused ??= error instanceof Error ? error : new Error(String(error));
    }
  }
  if (refused) throw refused;
}

/** Run whatever is out of date; a sweep that is too large to run by itself only after it was asked for by its name. */
async function everythingStale(lab: Lab): Promise<void> {
  const { app } = lab.desk;
  const found: Asked[] = [];
  let unplanned: Problem | null = null;
  for (const file of app.vault.getMarkdownFiles()) {
    if (!fences((await app.vault.cachedRead(file)).split("\n")).length) continue;
    await lab.look(file.path);
    void lab.daemon; // says so if there is none
    unplanned ??= lab.problem(file.path);
    const blocks = lab.known(file.path)?.planned.blocks ?? [];
    found.push(...blocks.filter((block) => !block.run).map((block): Asked => [file.path, block]));
  }
  const large = found.filter(([, block]) => block.state === "large");
  const stale = found.filter(([, block]) => STALE.includes(block.state));
  if (large.length) {
    const text = large.map(([, block]) => `${block.title}: ${block.why}.`);
    new Question(app, { title: "Run large sweeps too?", text, yes: "Run them" }, () => void said(ran(lab, large))).open();
  } else if (!stale.length) new Notice("Nothing is out of date.");
  await ran(lab, stale);
  if (unplanned) throw new Refusal(0, unplanned);
}

async function cancelled(lab: Lab): Promise<void> {
  for (const { run } of lab.underway) if (run) await lab.cancel(run);
}

/** Go to a line of a note, in the editor. */
export async function goto(lab: Lab, path: string, line: number): Promise<void> {
  const { workspace } = lab.desk.app;
  const file = lab.desk.file(path);
  if (!(file instanceof TFile)) return;
  await workspace.getLeaf(false).openFile(file, { eState: { line: line - 1 }, state: { mode: "source" } });
  workspace.getActiveViewOfType(MarkdownView)?.editor.setCursor(line - 1, 0);
}
