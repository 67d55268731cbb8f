import { afterEach, expect, test, vi } from "vitest";
import { offers } from "../src/complete";
import { EditorSuggest, type MarkdownView } from "./app/obsidian";
import { KNOWN } from "./catalogue";
import { House } from "./plugin";

const MODELS = ["smollm2-135m", "pythia"];
const texts = (line: string, before: string[] = [], after: string[] = []) =>
  offers(line, before, after, KNOWN, MODELS)?.offers.map(({ text }) => text) ?? [];

test("an empty block is offered the experiments, by name", () => {
  expect(texts("")).toEqual(["superposition", "attention"]);
  expect(texts("at")).toEqual(["attention"]);
  expect(offers("sup", [], [], KNOWN, MODELS)?.offers[0]).toMatchObject({
    insert: "superposition: ",
    note: "Does a layer hold more features than it has dimensions?",
  });
});

test("below it, the fields that it has not said yet, then what every block may say", () => {
  const found = texts("", ["superposition: p", "features: 6"], ["sparsity: 0.9"]);
  expect(found.join(" ")).toBe("model activation head bos text words matrix title expect sweep tests embed run id");
  expect(texts("spar", ["superposition: p"])).toEqual(["sparsity"]);
  expect(texts("sity", ["superposition: p"])).toEqual(["sparsity"]);
});

test("values: choices, yes and no, the models of this machine, the usual one first", () => {
  const before = ["superposition: p"];
  expect(texts("activation: ", before)).toEqual(["relu", "linear"]);
  expect(texts("bos: ", before)).toEqual(["true", "false"]);
  expect(texts("model: ", before)).toEqual(["smollm2-135m", "pythia"]);
  expect(texts("features: ", before)).toEqual(["5"]);
  expect(texts("run: m", before)).toEqual(["manual"]);
  expect(offers("features: ", before, [], KNOWN, MODELS)?.offers[0]?.note).toBe("By itself. a whole number from 2 to 512");
  expect(texts("activation: relu", before)).toEqual([]); // nothing is left to say
});

test("claims are offered metrics, a sweep its fields", () => {
  expect(texts("  - ", ["superposition: p", "expect:"])).toEqual(["loss", "represented"]);
  expect(texts("  - rep", ["superposition: p", "expect:", "  - loss < 1"])).toEqual(["represented"]);
  expect(texts("  spa", ["superposition: p", "sweep:"])).toEqual(["sparsity"]);
  expect(texts("  - ", ["superposition: p", "features: 5"])).toEqual([]);
});

test("a block of another language is not read", () => {
  expect(texts("features: ", ["nothing: known"])).toEqual([]);
});

let house: House | null = null;
afterEach(() => {
  house?.close();
  house = null;
});

async function typed(note: string): Promise<{ view: MarkdownView; suggest: EditorSuggest<{ text: string }> }> {
  house = await House.open({ "Note.md": "" });
  house.daemon.experiments = KNOWN.experiments;
  house.daemon.restart();
  house.plugin.unload();
  house.plugin.load();
  const view = await house.edit("Note.md");
  const at = note.indexOf("|");
  view.editor.cm.dispatch({ changes: { from: 0, insert: note.replace("|", "") }, selection: { anchor: at } });
  const suggest = house.plugin.suggests.at(-1) as EditorSuggest<{ text: string }>;
  const { daemon } = house;
  await vi.waitFor(() => expect(daemon.requests("/v1/experiments").length).toBeGreaterThan(1));
  return { view, suggest };
}

test("in the editor: what is chosen replaces what was typed, within a quote too, and the cursor stands behind it", async () => {
  const { view, suggest } = await typed("> ```vaultlab\n> superposition: p\n> spars|\n> ```\n");
  const found = await vi.waitFor(() => {
    const offered = suggest.asked(view.editor, view.file);
    expect(offered.map(({ text }) => text)).toEqual(["sparsity"]);
    return offered;
  });
  for (const one of found) suggest.selectSuggestion(one);
  expect(view.editor.getValue()).toBe("> ```vaultlab\n> superposition: p\n> sparsity: \n> ```\n");
  expect(view.editor.getCursor()).toEqual({ line: 2, ch: 12 });
});

test("outside of our blocks nothing is offered, nor in the middle of a line", async () => {
  const { view, suggest } = await typed("spars|\n\n```vaultlab\nsuperposition: p\n```\n\n```python\nspars\n```\n");
  await vi.waitFor(() => expect(house?.plugin.suggests).toHaveLength(1));
  for (const [line, ch] of [[0, 5], [2, 11], [3, 4], [4, 3], [7, 5]] as const) {
    view.editor.setCursor(line, ch);
    expect(suggest.asked(view.editor, view.file)).toEqual([]);
  }
});
