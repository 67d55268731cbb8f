/** Every kind of interactive figure, in its sealed frame. */

import "../app/dom";
import type { App as RealApp } from "obsidian";
import type { Data, Maps, Vectors } from "../../src/figure/data";
import { FigureView } from "../../src/figureView";
import { App, memory } from "../app/obsidian";

const WORDS = "<s> When Mary and John went to the store , John gave a drink to Mary and the keeper said thank you".split(" ");
const [LAYERS, HEADS] = [6, 8];

/** Heads that look at the token before, at the first, or at the same word. */
function maps(): Maps {
  const size = WORDS.length;
  const bytes: number[] = [];
  for (let place = 0; place < LAYERS * HEADS; place++) {
    for (let q = 0; q < size; q++) {
      for (let k = 0; k < size; k++) {
        const same = WORDS[q] === WORDS[k] && k < q;
        const near = [k === q - 1, k === 0, same, k === q][place % 4];
        bytes.push(k > q ? 0 : near ? 255 : Math.floor(40 / (1 + q - k)));
      }
    }
  }
  const grid = (of: (row: number, column: number) => number) => Array.from({ length: LAYERS }, (_, r) => Array.from({ length: HEADS }, (__, c) => of(r, c)));
  return {
    kind: "maps",
    axes: ["layer", "head"],
    rows: Array.from({ length: LAYERS }, (_, at) => at),
    columns: Array.from({ length: HEADS }, (_, at) => at),
    labels: WORDS.map((word, at) => (at ? ` ${word}` : word)),
    maps: btoa(String.fromCharCode(...bytes)),
    most: grid(() => 0.61),
    strength: grid((r, c) => ((r * 3 + c * 5) % 11) / 11),
    chosen: [2, 6],
    unit: "of what the head moves to a token on average",
  };
}

function vectors(features: number, hidden: number, values: number): Vectors {
  const angle = (at: number, seed: number) => (2 * Math.PI * at) / features + seed / 5;
  const arrow = (at: number, seed: number) => [Math.cos(angle(at, seed)), Math.sin(angle(at, seed)), at % 2 ? 0.7 : -0.7].slice(0, hidden);
  const seeds = Array.from({ length: values }, (_, at) => at);
  return {
    kind: "vectors",
    axis: "seed",
    values: seeds,
    vectors: seeds.map((seed) => Array.from({ length: features }, (_, at) => arrow(at, seed))),
    notes: seeds.map((seed) => `${features} represented, loss 0.0${seed + 1}`),
    chosen: 1,
  };
}

const sweep: Data = { kind: "sweep", field: "sparsity", values: ["0%", "70%", "90%"], each: [2, 4, 5].map((features) => vectors(features, 2, 3)) };
const CASES: Record<string, Data> = { maps: maps(), plane: vectors(5, 2, 8), space: vectors(7, 3, 4), line: vectors(2, 1, 4), sweep };

const workspace = document.body.appendChild(document.createElement("div"));
workspace.className = "workspace gallery";
const app = new App(memory());
for (const [name, data] of Object.entries(CASES)) {
  const block = workspace.createDiv({ cls: "vaultlab-block", attr: { "data-name": name } });
  new FigureView(block, app as unknown as RealApp, data, name).load();
}
Object.assign(window, { recolour: () => app.workspace.trigger("css-change") });
