/** An experiment as the daemon tells of it: every kind of field that there is. */

import type { Experiment } from "../src/protocol";

const properties = {
  model: { type: "string", kind: "model", default: "smollm2-135m", description: "The model that reads." },
  features: { type: "integer", minimum: 2, maximum: 512, default: 5, description: "How many features the data has." },
  sparsity: { type: "number", minimum: 0, maximum: 0.999, default: 0.95, description: "How often one is absent." },
  activation: { enum: ["relu", "linear"], type: "string", default: "relu", description: "What the output goes through." },
  head: { anyOf: [{ type: "string", kind: "head" }, { type: "null" }], default: null, description: "One head." },
  bos: { anyOf: [{ type: "boolean" }, { type: "null" }], default: null, description: "Whether to begin with one." },
  text: { type: "string", kind: "text", default: "hello", description: "What it reads." },
  words: { anyOf: [{ type: "string" }, { type: "array" }], kind: "list", default: ["good"], description: "Its words." },
  matrix: { $ref: "#/$defs/Matrix", default: [[1, 0]], description: "Rows of numbers." },
};

export const SUPERPOSITION: Experiment = {
  version: 1,
  title: "Does a layer hold more features than it has dimensions?",
  page: "Does a layer hold more features than it has dimensions?\n\nThe formula.",
  fields: { type: "object", properties, $defs: { Matrix: { type: "array" } } },
  metrics: [
    { name: "loss", help: "How far off it is." },
    { name: "represented", help: "How many features are kept." },
  ],
  interactive: true,
  examples: [
    {
      title: "Five fit in two: a pentagon",
      fields: { features: 5, sparsity: 0.9, matrix: [[1, 0], [0, 1]], text: "a: b" },
      expect: ["represented = 5"],
    },
  ],
};
export const KNOWN = {
  experiments: { superposition: SUPERPOSITION, attention: { ...SUPERPOSITION, title: "Where does each head look?" } },
  broken: {},
};
