/** An author who types on while the daemon's edit comes in, by seeds: every word whole, where it was typed, and one embed. */

import { afterEach, expect, test, vi } from "vitest";
import type { Edit } from "../src/protocol";
import { House, sha256 } from "./plugin";

const FENCE = "```vaultlab\nsuperposition: a\n```\n";
const NOTE = `First words.\n\n${FENCE}\nmore words\n- a list\n  of two lines\n\nlast words\n`;
const INSERT = "\n![[vaultlab/a#^result]]\n";
const STEPS = 120;

let house: House;
afterEach(() => house.close());

/** Park and Miller's numbers: the same seed, the same story. */
function chance(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state * 48_271) % 2_147_483_647;
    return state % below;
  };
}

const end = (text: string) => text.indexOf(FENCE) + FENCE.length;

function offer(text: string, id: string): Edit {
  return { id, path: "Note.md", base_sha256: sha256(text), offset: end(text), insert: INSERT };
}

test.each(Array.from({ length: 12 }, (_, seed) => seed + 1))("seed %i", async (seed) => {
  const random = chance(seed);
  house = await House.open({ "Note.md": NOTE });
  const { editor } = await house.edit("Note.md");
  const { cm } = editor;
  const composing = vi.spyOn(cm, "composing", "get").mockReturnValue(false);
  let applied = false;
  const gone = { message: "This edit is not wanted any more.", hint: "", line: null, field: null };
  house.daemon.answer = (_, target, body) => {
    const { outcome } = (body ?? {}) as { outcome?: string };
    if (!target.startsWith("/v1/edits/")) return null;
    if (outcome === "taken" && applied) return [409, gone];
    applied ||= outcome === "applied";
    return null;
  };
  const words: string[] = [];
  let rest = "";
  for (let step = 0; step < STEPS; step++) {
    if (!rest) {
      const text = cm.state.doc.toString();
      const within = (at: number) => text.lastIndexOf("<", at - 1) > text.lastIndexOf(">", at - 1) && at > 0;
      const outside = (at: number) => at < text.indexOf(FENCE) || at >= end(text);
      const places = Array.from({ length: text.length + 1 }, (_, at) => at).filter((at) => outside(at) && !within(at));
      const embed = text.indexOf(INSERT);
      const free = places.filter((at) => embed < 0 || at <= embed || at >= embed + INSERT.length);
      cm.dispatch({ selection: { anchor: free[random(free.length)] ?? 0 } });
      rest = `<${step}>`;
      words.push(rest);
    }
    const { head } = cm.state.selection.main;
    cm.dispatch({ changes: { from: head, insert: rest.charAt(0) }, selection: { anchor: head + 1 }, userEvent: "input.type" });
    rest = rest.slice(1);
    composing.mockReturnValue(random(5) === 0);
    if (random(6) === 0 && !applied) {
      const edit = offer(random(3) ? cm.state.doc.toString() : (house.disk.files["Note.md"] ?? ""), `e${step}`);
      house.daemon.tell({ kind: "edit", path: "Note.md", id: "a", edit });
    }
    await new Promise((resolve) => window.setTimeout(resolve, random(4)));
  }
  composing.mockReturnValue(false);
  cm.dispatch({ changes: { from: cm.state.selection.main.head, insert: rest } });
  await vi.waitFor(() => {
    if (!applied) house.daemon.tell({ kind: "edit", path: "Note.md", id: "a", edit: offer(cm.state.doc.toString(), `last${Date.now()}`) });
    expect(applied).toBe(true);
  }, { timeout: 30_000, interval: 300 });
  const text = cm.state.doc.toString();
  expect(text.split("![[vaultlab/a#^result]]")).toHaveLength(2);
  for (const word of words) expect(text.split(word)).toHaveLength(2);
  const left = words.reduce((said, word) => said.replace(word, ""), text);
  expect(left).toBe(NOTE.replace(FENCE, FENCE + INSERT));
});
