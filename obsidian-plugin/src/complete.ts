/** Completion within a block: experiments, fields, values, metrics, each with what it is; and the same by hovering. */

import type { EditorState, Extension } from "@codemirror/state";
import { hoverTooltip } from "@codemirror/view";
import {
  EditorSuggest,
  type App,
  type Editor,
  type EditorPosition,
  type EditorSuggestTriggerInfo,
  type TFile,
} from "obsidian";
import { fenceAt } from "./fence";
import type { Lab } from "./lab";
import { blocks } from "./marks";
import type { Experiment, Experiments } from "./protocol";
import { COMMON, explained, fieldsOf, written, type Field } from "./schema";

export interface Offer {
  /** What is shown, and put in from `from` up to the cursor. */
  text: string;
  insert: string;
  note: string;
}

/** What could stand at the end of `line`, and from where on; the block's other lines are known. */
export interface Offers {
  from: number;
  offers: Offer[];
}

const MOST = 40;

/** What could be typed at the end of a block's line, best first. `before` are the block's lines above it. */
export function offers(
  line: string,
  before: readonly string[],
  after: readonly string[],
  known: Experiments,
  models: readonly string[],
): Offers | null {
  const experiment = experimentOf([...before, line, ...after], known);
  const [, indent = "", key = ""] = /^(\s*(?:-\s+)?)([A-Za-z_][\w-]*)?$/.exec(line) ?? [];
  const under = within(before);
  if (/^\s*-\s/.test(indent) && under === "expect") return narrowed(indent.length, key, metrics(experiment));
  if (/^\s+$/.test(indent) && under === "sweep") return narrowed(indent.length, key, swept(experiment));
  if (line === key) return narrowed(0, key, experiment ? keys(experiment, [...before, ...after]) : experiments(known));
  const [whole, name = "", value = ""] = /^([A-Za-z_][\w-]*):\s+(\S*)$/.exec(line) ?? [];
  if (!whole) return null;
  const field = explained(name, experiment);
  return field && narrowed(line.length - value.length, value, values(field, models));
}

/** The experiment that a block's lines name. */
export function experimentOf(lines: readonly string[], known: Experiments): Experiment | null {
  for (const line of lines) {
    const [, name = "", value = ""] = /^([A-Za-z_]\w*):\s*(\S*)/.exec(line) ?? [];
    const found = known.experiments[name === "experiment" ? value : name];
    if (found) return found;
  }
  return null;
}

function narrowed(from: number, typed: string, all: Offer[]): Offers | null {
  const wanted = typed.toLowerCase();
  const starts = all.filter(({ text }) => text.toLowerCase().startsWith(wanted));
  const has = all.filter((one) => !starts.includes(one) && one.text.toLowerCase().includes(wanted));
  const found = [...starts, ...has].slice(0, MOST);
  const done = found.length === 1 && found[0]?.text === typed;
  return found.length && !done ? { from, offers: found } : null;
}

function experiments(known: Experiments): Offer[] {
  return Object.entries(known.experiments).map(([name, { title }]) => ({ text: name, insert: `${name}: `, note: title }));
}

function keys(experiment: Experiment, lines: readonly string[]): Offer[] {
  const taken = new Set(lines.map((line) => /^([A-Za-z_][\w-]*):/.exec(line)?.[1] ?? ""));
  const own = fieldsOf(experiment).map(({ name, help }) => ({ text: name, insert: `${name}: `, note: help }));
  const common = Object.entries(COMMON).map(([name, note]) => {
    const insert = name === "expect" ? "expect:\n  - " : name === "sweep" ? "sweep:\n  " : `${name}: `;
    return { text: name, insert, note };
  });
  return [...own, ...common].filter(({ text }) => !taken.has(text));
}

function swept(experiment: Experiment | null): Offer[] {
  if (!experiment) return [];
  const able = fieldsOf(experiment).filter(({ kind }) => kind !== "text");
  return able.map(({ name, help }) => ({ text: name, insert: `${name}: [`, note: help }));
}

function metrics(experiment: Experiment | null): Offer[] {
  const told = (experiment?.metrics ?? []) as unknown as { name: string; help: string }[];
  return told.map(({ name, help }) => ({ text: name, insert: `${name} `, note: help }));
}

function values(field: Field, models: readonly string[]): Offer[] {
  const usual = written(field.default);
  const all = field.kind === "model" ? models : field.kind === "flag" ? ["true", "false"] : field.choices;
  const offered = [...new Set([...(field.default === null ? [] : [usual]), ...all])];
  return offered.map((text) => ({ text, insert: text, note: text === usual ? `By itself. ${field.takes}` : field.takes }));
}

/** The key that an indented line belongs to. */
function within(before: readonly string[]): string {
  for (const line of [...before].reverse()) {
    const [, name] = /^([A-Za-z_][\w-]*):\s*$/.exec(line) ?? [];
    if (name) return name;
    if (/^\S/.test(line)) return "";
  }
  return "";
}

interface Inside {
  before: string[];
  line: string;
  after: string[];
  /** How wide what stands before every line is, in a list or a quote. */
  prefix: number;
}

/** The block around a line: what is typed there, above it and below. */
function around(state: EditorState, number: number): Inside | null {
  const fence = fenceAt(state.field(blocks, false) ?? [], number);
  if (!fence || number === fence.start || (fence.closed && number === fence.end)) return null;
  const prefix = /^[^`~]*/.exec(state.doc.line(fence.start).text)?.[0].length ?? 0;
  const last = fence.closed ? fence.end - 1 : fence.end;
  const lines = Array.from({ length: last - fence.start }, (_, at) => state.doc.line(fence.start + 1 + at).text.slice(prefix));
  const at = number - fence.start - 1;
  return { before: lines.slice(0, at), line: lines[at] ?? "", after: lines.slice(at + 1), prefix };
}

/** The app's own list of suggestions, within our fences. */
export class Completion extends EditorSuggest<Offer> {
  private found: Offer[] = [];

  constructor(
    app: App,
    private readonly lab: Lab,
  ) {
    super(app);
    this.limit = MOST;
  }

  override onTrigger(cursor: EditorPosition, _editor: Editor, file: TFile | null): EditorSuggestTriggerInfo | null {
    const known = this.lab.experiments;
    const [view] = file ? this.lab.desk.editors(file.path) : [];
    const inside = known && view && around(view.state, cursor.line + 1);
    if (!inside || cursor.ch < inside.prefix || inside.line.slice(cursor.ch - inside.prefix).trim()) return null;
    const { state } = this.lab.link;
    const models = state.is === "connected" ? state.hello.models : [];
    const typed = inside.line.slice(0, cursor.ch - inside.prefix);
    const offered = offers(typed, inside.before, inside.after, known, models);
    this.found = offered?.offers ?? [];
    return offered && { start: { line: cursor.line, ch: inside.prefix + offered.from }, end: cursor, query: "" };
  }

  override getSuggestions(): Offer[] {
    return this.found;
  }

  override renderSuggestion(offer: Offer, el: HTMLElement): void {
    el.addClass("vaultlab-offer");
    el.createDiv({ text: offer.text });
    el.createDiv({ cls: "vaultlab-aside", text: offer.note });
  }

  override selectSuggestion(offer: Offer): void {
    if (!this.context) return;
    const { editor, start, end } = this.context;
    editor.replaceRange(offer.insert, start, end);
    const lines = offer.insert.split("\n");
    const last = lines.at(-1) ?? "";
    editor.setCursor(start.line + lines.length - 1, lines.length > 1 ? last.length : start.ch + last.length);
  }
}

/** What a field is, when the pointer rests on its name. */
export function hovering(lab: Lab): Extension {
  return hoverTooltip((view, pos) => {
    const line = view.state.doc.lineAt(pos);
    const inside = lab.experiments && around(view.state, line.number);
    const [, name = ""] = /^([A-Za-z_][\w-]*):/.exec(inside?.line ?? "") ?? [];
    const from = line.from + (inside?.prefix ?? 0);
    if (!inside || !lab.experiments || !name || pos < from || pos > from + name.length) return null;
    const experiment = experimentOf([...inside.before, inside.line, ...inside.after], lab.experiments);
    const named = lab.experiments.experiments[name];
    const field = named ? null : explained(name, experiment);
    if (!named && !field) return null;
    const create = () => ({ dom: tip(named?.title ?? field?.help ?? "", field ? usual(field) : "") });
    return { pos: from, end: from + name.length, above: true, create };
  });
}

function usual({ takes, default: value }: Field): string {
  return [takes, value === null ? "" : `by itself ${written(value)}`].filter(Boolean).join("; ");
}

function tip(help: string, aside: string): HTMLElement {
  const dom = createDiv("vaultlab-tip");
  dom.createDiv({ text: help });
  if (aside) dom.createDiv({ cls: "vaultlab-aside", text: aside });
  return dom;
}
