import type { EditorView } from "@codemirror/view";
import { afterEach, expect, test, vi } from "vitest";
import * as fence from "../src/fence";
import { blocks } from "../src/marks";
import { block } from "./daemon";
import { House } from "./plugin";

const NOTE = "Words.\n\n```vaultlab\nsuperposition: a\nfeatures: 5\n```\n\nMore words.\n";
const PROBLEM = { message: "`featurs` is no field.", hint: "Did you mean `features`?", line: 5, field: "featurs" };

let house: House;
let cm: EditorView;
afterEach(() => house.close());

const mends = () => Array.from(cm.dom.querySelectorAll(".vaultlab-mend"), (one) => one.textContent);
const plans = () => house.daemon.requests("/v1/plan").length;
const type = (at: string, insert: string) =>
  cm.dispatch({ changes: { from: cm.state.doc.toString().indexOf(at), insert }, userEvent: "input.type" });

async function opened(note = NOTE): Promise<void> {
  house = await House.open({ "Note.md": note });
  house.daemon.plan = (_, text) => {
    const wrong = text.includes("featurs");
    return { blocks: [block({ id: "a", start: 3, end: 6, state: wrong ? "error" : "fresh", problems: wrong ? [PROBLEM] : [] })] };
  };
  ({ cm } = (await house.edit("Note.md")).editor);
}

test("what is wrong is marked on its line with the mend, and unmarked when it is mended", async () => {
  await opened();
  await vi.waitFor(() => expect(plans()).toBe(1));
  const at = cm.state.doc.toString().indexOf("es: 5");
  cm.dispatch({ changes: { from: at, to: at + 1 }, userEvent: "delete.backward" });
  await vi.waitFor(() => expect(mends()).toEqual(["featurs is no field.Did you mean features?"]));
  expect(cm.dom.querySelector(".vaultlab-wrong")?.textContent).toBe("featurs: 5");
  type("s: 5", "e");
  await vi.waitFor(() => expect(mends()).toEqual([]));
});

test("a keystroke outside a block costs no plan, and no look for fences", async () => {
  await opened();
  await vi.waitFor(() => expect(plans()).toBe(1));
  const looked = vi.spyOn(fence, "fences");
  for (const letter of "typing on and on") type("More words", letter);
  await new Promise((resolve) => window.setTimeout(resolve, 600));
  expect(plans()).toBe(1);
  for (let one = 0; one < 20; one++) type("More words", "\n");
  type("Words.", "\n");
  expect(looked).not.toHaveBeenCalled();
  const state = cm.state.field(blocks);
  expect(state).toEqual(fence.fences(cm.state.doc.iterLines()));
  looked.mockRestore();
  type("features", "x");
  await vi.waitFor(() => expect(plans()).toBe(2));
});

test("where the fences are is known after whatever is typed, pasted or taken out", async () => {
  await opened(`${NOTE}\n> quoted\n> \`\`\`vaultlab\n> superposition: b\n> \`\`\`\n\n~~~python\nx\n~~~\n\nEnd.\n`);
  const pieces = ["\n", "x", "\n\n", "```", "> ", "```vaultlab\n", "a\nb\nc", "- ", "~~~\n"];
  let seed = 7;
  const drawn = (most: number) => (seed = (seed * 16807) % 2147483647) % most;
  for (let one = 0; one < 400; one++) {
    const from = drawn(cm.state.doc.length + 1);
    const to = Math.min(cm.state.doc.length, from + (one % 3 ? 0 : drawn(12)));
    cm.dispatch({ changes: { from, to, insert: one % 4 ? (pieces[drawn(pieces.length)] ?? "") : "" } });
    if (cm.state.doc.lines < 400) continue;
    cm.dispatch({ changes: { from: 0, to: cm.state.doc.length, insert: NOTE } });
  }
  const known = cm.state.field(blocks);
  expect(known).toEqual(fence.fences(cm.state.doc.iterLines()));
});

test("keystrokes in a block become one plan, after they have ended", async () => {
  await opened();
  await vi.waitFor(() => expect(plans()).toBe(1));
  for (const letter of "seed") type("features: 5", letter);
  await vi.waitFor(() => expect(plans()).toBe(2));
});

test("nothing is asked while a letter is being composed", async () => {
  await opened();
  await vi.waitFor(() => expect(plans()).toBe(1));
  const composing = vi.spyOn(cm, "composing", "get").mockReturnValue(true);
  type("features: 5", "ま");
  await new Promise((resolve) => window.setTimeout(resolve, 800));
  expect(plans()).toBe(1);
  composing.mockReturnValue(false);
  await vi.waitFor(() => expect(plans()).toBe(2));
});

test("a note without a block is not asked about, until it has one", async () => {
  await opened("Words.\n");
  await new Promise((resolve) => window.setTimeout(resolve, 200));
  expect(plans()).toBe(0);
  cm.dispatch({ changes: { from: 7, insert: "\n```vaultlab\nsuperposition: a\n```\n" } });
  await vi.waitFor(() => expect(plans()).toBe(1));
});

test("a note that moves its lines keeps its marks on them", async () => {
  await opened(NOTE.replace("features", "featurs"));
  await vi.waitFor(() => expect(mends()).toHaveLength(1));
  cm.dispatch({ changes: { from: 0, insert: "Another line.\n" } });
  expect(cm.dom.querySelector(".vaultlab-wrong")?.textContent).toBe("featurs: 5");
});
