/** What a block may say, read from the daemon's JSON schema: nothing about any experiment is known here. Pure. */

import type { Experiment } from "./protocol";

export interface Field {
  name: string;
  help: string;
  /** What it takes, in words. */
  takes: string;
  kind: "whole" | "number" | "flag" | "choice" | "model" | "text" | "list" | "words";
  choices: string[];
  default: unknown;
  /** Whether `none` is one of its values. */
  optional: boolean;
}

interface Schema {
  $ref?: string;
  anyOf?: Schema[];
  type?: string;
  kind?: string;
  enum?: unknown[];
  const?: unknown;
  default?: unknown;
  description?: string;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
}

/** Keys that every block may have, with what they are for. */
export const COMMON: Readonly<Record<string, string>> = {
  title: "What the result is called.",
  expect: "Claims that the result is judged by, one a line.",
  sweep: "Fields with several values: one run for each.",
  tests: "A link to the claim that this block tests.",
  embed: "What is shown under the block: result, figure or none.",
  run: "When it runs: auto, manual or frozen.",
  id: "Its name in the vault, for ever.",
};
const CHOICES: Readonly<Record<string, string[]>> = { embed: ["result", "figure", "none"], run: ["auto", "manual", "frozen"] };

/** The fields of an experiment, in its own order. */
export function fieldsOf(experiment: Experiment): Field[] {
  const { properties = {}, $defs = {} } = experiment.fields as {
    properties?: Record<string, Schema>;
    $defs?: Record<string, Schema>;
  };
  return Object.entries(properties).map(([name, schema]) => field(name, schema, $defs));
}

/** What a key of a block is, be it the experiment's or every block's own; null where it is none. */
export function explained(name: string, experiment: Experiment | null): Field | null {
  const own = experiment && fieldsOf(experiment).find((one) => one.name === name);
  if (own) return own;
  const help = COMMON[name];
  const choices = CHOICES[name] ?? [];
  const kind = choices.length ? "choice" : "text";
  return help ? { name, help, takes: choices.join(", "), kind, choices, default: choices[0] ?? null, optional: true } : null;
}

function field(name: string, schema: Schema, shared: Record<string, Schema>): Field {
  const arms = (schema.anyOf ?? [schema]).map((arm) => resolved(arm, shared));
  const optional = arms.some((arm) => arm.type === "null");
  const [arm = {}] = arms.filter((one) => one.type !== "null");
  const choices = (arm.enum ?? (arm.const === undefined ? [] : [arm.const])).map(String);
  const known = { ...arm, ...(schema.anyOf ? {} : schema), kind: arm.kind ?? schema.kind };
  const kind = kindOf(known, choices);
  const takes = [words(kind, known, choices), ...(optional ? ["none"] : [])].join(" or ");
  return { name, help: schema.description ?? "", takes, kind, choices, default: schema.default ?? null, optional };
}

function resolved(schema: Schema, shared: Record<string, Schema>): Schema {
  return schema.$ref ? { ...shared[schema.$ref.slice(schema.$ref.lastIndexOf("/") + 1)], ...schema } : schema;
}

function kindOf(arm: Schema, choices: readonly string[]): Field["kind"] {
  if (choices.length) return "choice";
  if (arm.kind === "model") return "model";
  if (arm.kind === "list") return "words";
  switch (arm.type) {
    case "integer":
      return "whole";
    case "number":
      return "number";
    case "boolean":
      return "flag";
    case "array":
      return "list";
    default:
      return "text";
  }
}

function words(kind: Field["kind"], arm: Schema, choices: readonly string[]): string {
  switch (kind) {
    case "choice":
      return choices.join(", ");
    case "flag":
      return "true or false";
    case "model":
      return "a model of this machine";
    case "list":
      return "a list";
    case "words":
      return 'a list, or where it stands: "[[Note#Heading]]"';
    case "text":
      return arm.kind === "head" ? "a head, such as L17H10" : "a text";
    default:
      return [kind === "whole" ? "a whole number" : "a number", range(arm)].filter(Boolean).join(" ");
  }
}

function range({ minimum, maximum, exclusiveMinimum, exclusiveMaximum }: Schema): string {
  const low = minimum !== undefined ? `from ${minimum}` : exclusiveMinimum !== undefined ? `above ${exclusiveMinimum}` : "";
  const high = maximum !== undefined ? `to ${maximum}` : exclusiveMaximum !== undefined ? `below ${exclusiveMaximum}` : "";
  return [low, high].filter(Boolean).join(" ");
}

/** A value as a note would write it. */
export function written(value: unknown): string {
  if (value === null || value === undefined) return "none";
  return typeof value === "string" ? value : JSON.stringify(value);
}
