import { redo, undo } from "@codemirror/commands";
import type { EditorView } from "@codemirror/view";
import { afterEach, expect, test, vi } from "vitest";
import type { Edit } from "../src/protocol";
import { block } from "./daemon";
import { cases } from "./corpus";
import { House, sha256 } from "./plugin";

const FENCE = "```vaultlab\nsuperposition: a\n```\n";
const NOTE = `Before\n\n${FENCE}text below\n`;
const INSERT = "\n![[vaultlab/a#^result]]\n\n";
const OFFSET = NOTE.indexOf("text below");

let house: House;
afterEach(() => house.close());

const edit = (text: string, said: Partial<Edit> = {}): Edit => ({
  id: "e1",
  path: "Note.md",
  base_sha256: sha256(text),
  offset: OFFSET,
  insert: INSERT,
  ...said,
});
const ask = (one: Edit) => house.daemon.tell({ kind: "edit", path: one.path, id: "a", edit: one });
const outcomes = () => house.daemon.requests("/v1/edits").map((one) => (one as { outcome: string }).outcome);
const after = (text: string) => text.slice(0, OFFSET) + INSERT + text.slice(OFFSET);

test("in an open note it is one undo step, and the cursor stays with its text", async () => {
  house = await House.open({ "Note.md": NOTE });
  const { cm } = (await house.edit("Note.md")).editor;
  const typed = NOTE.replace("text below", "text belo!");
  cm.dispatch({ changes: { from: OFFSET + 9, to: OFFSET + 10, insert: "!" }, userEvent: "input.type" });
  cm.dispatch({ selection: { anchor: OFFSET } });
  ask(edit(typed));
  await vi.waitFor(() => expect(outcomes()).toEqual(["taken", "applied"]));
  expect(cm.state.doc.toString()).toBe(after(typed));
  expect(house.disk.files["Note.md"]).toBe(after(typed));
  expect(cm.state.sliceDoc(cm.state.selection.main.head, cm.state.selection.main.head + 4)).toBe("text");
  undo(cm);
  expect(cm.state.doc.toString()).toBe(typed);
  undo(cm);
  expect(cm.state.doc.toString()).toBe(NOTE);
  redo(cm);
  redo(cm);
  expect(cm.state.doc.toString()).toBe(after(typed));
});

test("a text that has moved on is left alone, and planned anew", async () => {
  house = await House.open({ "Note.md": NOTE });
  const { cm } = (await house.edit("Note.md")).editor;
  cm.dispatch({ changes: { from: 0, insert: "More\n" } });
  await vi.waitFor(() => expect(house.daemon.requests("/v1/plan")).toHaveLength(1));
  house.daemon.plan = (_, text) => {
    const owed = edit(text, { id: sha256(text).slice(0, 16), offset: OFFSET + 5 });
    return { blocks: [block({ id: "a", edit: text.includes(INSERT) ? null : owed })] };
  };
  ask(edit(NOTE));
  await vi.waitFor(() => expect(outcomes()).toContain("applied"));
  expect(outcomes()).toContain("conflict");
  expect(cm.state.doc.toString()).toBe(`More\n${after(NOTE)}`);
});

test("an edit that is no longer wanted is not made", async () => {
  house = await House.open({ "Note.md": NOTE });
  await house.edit("Note.md");
  const problem = { message: "This edit is not wanted any more.", hint: "", line: null, field: null };
  house.daemon.answer = (_, target) => (target === "/v1/edits/e1" ? [409, problem] : null);
  ask(edit(NOTE));
  await vi.waitFor(() => expect(outcomes()).toEqual(["taken"]));
  expect(house.disk.files["Note.md"]).toBe(NOTE);
});

test("what is typed while the daemon is asked wins", async () => {
  house = await House.open({ "Note.md": NOTE });
  const { cm } = (await house.edit("Note.md")).editor;
  house.daemon.answer = (_, target, body) => {
    if (target === "/v1/edits/e1" && (body as { outcome: string }).outcome === "taken") {
      cm.dispatch({ changes: { from: 0, insert: "x" } });
    }
    return null;
  };
  ask(edit(NOTE));
  await vi.waitFor(() => expect(outcomes()).toEqual(["taken", "conflict"]));
  expect(cm.state.doc.toString()).toBe(`x${NOTE}`);
});

test("two panes of one text get it once", async () => {
  house = await House.open({ "Note.md": NOTE });
  const first = (await house.edit("Note.md")).editor.cm;
  const second = (await house.edit("Note.md")).editor.cm;
  ask(edit(NOTE));
  await vi.waitFor(() => expect(outcomes()).toEqual(["taken", "applied"]));
  await vi.waitFor(() => expect(second.state.doc.toString()).toBe(after(NOTE)));
  expect(first.state.doc.toString()).toBe(after(NOTE));
  expect(house.disk.files["Note.md"]).toBe(after(NOTE));
});

test("two panes that differ are not touched", async () => {
  house = await House.open({ "Note.md": NOTE });
  await house.edit("Note.md");
  const second = (await house.edit("Note.md")).editor.cm;
  second.dispatch({ changes: { from: 0, insert: "x" } });
  ask(edit(NOTE));
  await vi.waitFor(() => expect(outcomes()).toEqual(["deferred"]));
});

test("a letter that is being composed is waited for", async () => {
  house = await House.open({ "Note.md": NOTE });
  const { cm } = (await house.edit("Note.md")).editor;
  const composing = vi.spyOn(cm, "composing", "get").mockReturnValue(true);
  ask(edit(NOTE));
  await new Promise((resolve) => window.setTimeout(resolve, 500));
  expect(outcomes()).toEqual([]);
  expect(cm.state.doc.toString()).toBe(NOTE);
  composing.mockReturnValue(false);
  await vi.waitFor(() => expect(outcomes()).toEqual(["taken", "applied"]), 5000);
});

test("a closed note is written by the vault, if nobody has written it just now", async () => {
  house = await House.open({ "Note.md": NOTE, "Other.md": "" });
  await house.edit("Other.md");
  ask(edit(NOTE));
  await vi.waitFor(() => expect(outcomes()).toEqual(["taken", "applied"]));
  expect(house.disk.files["Note.md"]).toBe(after(NOTE));
  ask(edit(after(NOTE), { id: "e2" }));
  await vi.waitFor(() => expect(outcomes()).toEqual(["taken", "applied", "deferred"]));
});

test("an editor behind the reading view is out of date: the note on the disk is meant", async () => {
  house = await House.open({ "Note.md": NOTE });
  const { cm } = (await house.edit("Note.md", "preview")).editor;
  cm.dispatch({ changes: { from: 0, insert: "of old" } });
  ask(edit(NOTE));
  await vi.waitFor(() => expect(outcomes()).toEqual(["taken", "applied"]));
  expect(house.disk.files["Note.md"]).toBe(after(NOTE));
});

test("a note with other line ends keeps them, open or not", async () => {
  const crlf = NOTE.replaceAll("\n", "\r\n");
  house = await House.open({ "Note.md": crlf });
  await house.edit("Note.md");
  const offset = crlf.indexOf("text below");
  const insert = INSERT.replaceAll("\n", "\r\n");
  ask(edit(crlf, { offset, insert }));
  await vi.waitFor(() => expect(outcomes()).toEqual(["taken", "applied"]));
  expect(house.disk.files["Note.md"]).toBe(crlf.slice(0, offset) + insert + crlf.slice(offset));
});

test.each([
  ["closed", "\ufeff"],
  ["open", "\ufeff"],
  ["closed", "\ufeff\r"],
  ["open", "\ufeff\r"],
  ["open", "\r"],
])("a note that is %s and has a byte order mark or other line ends (%j) keeps every byte of them", async (how, marks) => {
  const bytes = (text: string) => (marks.startsWith("\ufeff") ? "\ufeff" : "") + (marks.endsWith("\r") ? text.replaceAll("\n", "\r\n") : text);
  const note = bytes(NOTE);
  house = await House.open({ "Note.md": note, "Other.md": "" });
  const { cm } = (await house.edit(how === "open" ? "Note.md" : "Other.md")).editor;
  const shown = cm.state.doc.toString();
  // What the daemon has on the disk, and then what it makes of the text that it is given.
  const offset = note.indexOf("text below");
  const insert = marks.endsWith("\r") ? INSERT.replaceAll("\n", "\r\n") : INSERT;
  house.daemon.plan = (_, text) => ({ blocks: [block({ id: "a", edit: text.includes("![[") ? null : edit(text, { id: "e2", offset, insert }) })] });
  ask(edit(note, { base_sha256: sha256(`${note}of before`) }));
  await vi.waitFor(() => expect(outcomes()).toEqual(["conflict", "taken", "applied"]), 5000);
  expect(house.disk.files["Note.md"]).toBe(note.slice(0, offset) + insert + note.slice(offset));
  await vi.waitFor(() => expect(cm.state.doc.toString()).toBe(how === "open" ? after(NOTE) : shown));
});

test("a note with a byte order mark that is written meanwhile is left as it is, mark and all", async () => {
  const note = `\ufeff${NOTE}`;
  house = await House.open({ "Note.md": note });
  house.daemon.answer = (_, target, body) => {
    if (target === "/v1/edits/e1" && (body as { outcome: string }).outcome === "taken") house.disk.files["Note.md"] = `${note}More\n`;
    return null;
  };
  ask(edit(note, { offset: OFFSET + 1 }));
  await vi.waitFor(() => expect(outcomes()).toEqual(["taken", "conflict"]), 5000);
  expect(house.disk.files["Note.md"]).toBe(`${note}More\n`);
});

test("a cursor at the end of a fence that ends the note stays there", async () => {
  const short = NOTE.slice(0, OFFSET - 1);
  house = await House.open({ "Note.md": short });
  const { cm } = (await house.edit("Note.md")).editor;
  cm.dispatch({ selection: { anchor: short.length } });
  ask(edit(short, { offset: short.length, insert: "\n\n![[vaultlab/a#^result]]" }));
  await vi.waitFor(() => expect(outcomes()).toEqual(["taken", "applied"]));
  expect(cm.state.selection.main.head).toBe(short.length);
});

test.each(cases("splice").filter((one) => one.after && !one.note.includes("\r")))(
  "the corpus: $title",
  async ({ note, after: meant }) => {
    const text = note.replace(/^\ufeff/, "");
    house = await House.open({ "Note.md": text });
    const { cm } = (await house.edit("Note.md")).editor;
    for (const [at, one] of insertions(text, (meant ?? "").replace(/^\ufeff/, "")).entries()) {
      ask(edit(cm.state.doc.toString(), { id: `e${at}`, ...one }));
      await vi.waitFor(() => expect(outcomes().filter((said) => said === "applied")).toHaveLength(at + 1));
    }
    expect(house.disk.files["Note.md"]).toBe((meant ?? "").replace(/^\ufeff/, ""));
    undoAll(cm);
    expect(cm.state.doc.toString()).toBe(text);
  },
);

/** What has to be put into the first text, from its beginning on, to get the second. */
function insertions(from: string, to: string): { offset: number; insert: string }[] {
  const found: { offset: number; insert: string }[] = [];
  const [before, wanted] = [from.match(/.*\n|.+/g) ?? [], to.match(/.*\n|.+/g) ?? []];
  let offset = 0;
  let at = 0;
  let insert = "";
  for (const line of wanted) {
    if (line === before[at]) {
      if (insert) found.push({ offset, insert });
      offset += insert.length + line.length;
      insert = "";
      at++;
    } else if (before[at] !== undefined && line === `${before[at]}\n`) {
      offset += line.length - 1;
      insert = "\n";
      at++;
    } else insert += line;
  }
  if (insert) found.push({ offset, insert });
  return found;
}

function undoAll(cm: EditorView): void {
  while (undo(cm));
}
