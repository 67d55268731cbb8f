/** The one line that the daemon puts under a block: made only in the very text that it was computed from. */

import { isolateHistory } from "@codemirror/commands";
import type { EditorView } from "@codemirror/view";
import type { Lab } from "./lab";
import type { Edit, Outcome } from "./protocol";
import { sha256 } from "./sign";

const COMPOSING_MS = 10_000;
const LOOK_MS = 100;

/** Make an edit, and tell the daemon what became of it. */
export async function apply(lab: Lab, edit: Edit): Promise<void> {
  let outcome = await made(lab, edit);
  if (outcome === "conflict") {
    // The note has moved on: what the daemon would do to it as it is now comes with its plan.
    await lab.look(edit.path);
    const block = lab.known(edit.path)?.planned.blocks.find((one) => one.edit && one.edit.insert === edit.insert);
    if (block?.edit) outcome = await made(lab, block.edit);
  }
  await lab.daemon.ask("POST", `/v1/edits/${edit.id}`, { outcome });
}

async function made(lab: Lab, edit: Edit): Promise<Outcome> {
  const views = lab.desk.editors(edit.path);
  if (!views.length) return await onDisk(lab, edit);
  if (!(await atRest(views))) return "deferred";
  const texts = new Set(views.map((view) => view.state.doc.toString()));
  const [text = "", ...others] = texts;
  if (others.length) return "deferred"; // two panes that the app has not yet brought together
  const hash = await sha256(text);
  const [view] = lab.desk.editors(edit.path).filter((one) => one.state.doc.toString() === text && !one.composing);
  if (!view) return "deferred"; // somebody typed while we reckoned
  if (hash !== edit.base_sha256) return await unchanged(lab, edit, text);
  const { offset: from, insert } = edit;
  view.dispatch({ changes: { from, insert }, annotations: isolateHistory.of("full") });
  return "applied";
}

/** An editor holds every line end as a line feed: a note that has others is written where they are, on the disk. */
async function unchanged(lab: Lab, edit: Edit, text: string): Promise<Outcome> {
  const file = lab.desk.file(edit.path);
  const saved = file && (await lab.desk.app.vault.read(file));
  return saved?.includes("\r") && saved.replace(/\r\n?/g, "\n") === text ? await onDisk(lab, edit) : "conflict";
}

async function onDisk(lab: Lab, edit: Edit): Promise<Outcome> {
  const { vault } = lab.desk.app;
  const file = lab.desk.file(edit.path);
  if (!file) return "conflict";
  const read = await vault.read(file);
  if ((await sha256(read)) !== edit.base_sha256) return "conflict";
  let outcome: Outcome = "conflict";
  await vault.process(file, (text) => {
    if (text !== read || lab.desk.editors(edit.path).some(unlike(text))) return text;
    outcome = "applied";
    return text.slice(0, edit.offset) + edit.insert + text.slice(edit.offset);
  });
  return outcome;
}

function unlike(text: string): (view: EditorView) => boolean {
  const plain = text.replace(/\r\n?/g, "\n");
  return (view) => view.state.doc.toString() !== plain;
}

/** Whether nobody is in the middle of a composed letter, at the latest after ten seconds. */
async function atRest(views: readonly EditorView[]): Promise<boolean> {
  for (const until = Date.now() + COMPOSING_MS; Date.now() < until; ) {
    if (!views.some((view) => view.composing)) return true;
    await new Promise((resolve) => window.setTimeout(resolve, LOOK_MS));
  }
  return false;
}
