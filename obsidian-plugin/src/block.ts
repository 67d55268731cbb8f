/** What to show of a block: from its text, the daemon's plan, the last event and its result note. Pure. */

import type { State } from "./link";
import type { Page, Verdict } from "./page";
import type { Block, Event, Experiment, Planned, Problem } from "./protocol";
import { COMMON } from "./schema";

export type Tone = "fresh" | "refuted" | "undecided" | "stale" | "waiting" | "running" | "failed" | "quiet";
export type Action = "run" | "cancel" | "open" | "why" | "pair" | "trust" | "retry" | "copy" | "explore" | "partake";

export interface Seen {
  state: State;
  planned: Planned | null;
  block: Block | null;
  event: Event | null;
  page: Page | null;
  experiment: Experiment | null;
  /** Whether the text that is planned has this block's text in it. */
  typed: boolean;
  /** Why the note as a whole could not be planned. */
  problem: Problem | null;
  /** What stood in the way of what was last asked of this block. */
  said: Problem | null;
}

export interface Sight {
  tone: Tone;
  title: string;
  /** What it will run, in plain words. */
  what: string;
  fields: string[];
  state: string;
  detail: string;
  hint: string;
  /** The line of the note where it goes wrong. */
  line: number | null;
  /** What to type in a terminal. */
  command: string;
  /** Whether the detail is what went wrong. */
  wrong: boolean;
  progress: { done: number | null; total: number | null; text: string } | null;
  claims: { text: string; verdict: Verdict | null }[];
  actions: Action[];
}

type Standing = Pick<Sight, "tone" | "state"> & Partial<Sight>;

const LOOKING: Standing = { tone: "quiet", state: "Looking…" };
const PLAIN = "Its place in the note makes it plain text.";
const SHARED = [...Object.keys(COMMON), "experiment"];

/** What to show of the block with this text. */
export function sight(source: string, seen: Seen): Sight {
  const said = read(source);
  const standing = stands(seen);
  const actions = standing.actions ?? [];
  if (seen.page) actions.push("open");
  if (seen.page && seen.experiment?.interactive && seen.state.is === "connected") actions.push("explore");
  return {
    title: seen.block?.title || said.title || words(said.id) || "An experiment",
    what: seen.experiment?.title ?? words(said.experiment),
    fields: seen.block ? Object.entries(seen.block.fields).map(([name, value]) => `${name} ${shown(value)}`) : said.fields,
    detail: "",
    hint: "",
    line: null,
    command: "",
    wrong: false,
    progress: null,
    claims: said.claims.map((text) => ({ text, verdict: seen.page?.claims.get(text) ?? null })),
    ...standing,
    ...(seen.said && { detail: seen.said.message, hint: seen.said.hint, line: seen.said.line, wrong: true }),
    actions,
  };
}

function stands(seen: Seen): Standing {
  const { state, planned, block, event } = seen;
  if (state.is !== "connected") return apart(state, seen.page);
  if (seen.problem) return wrong(seen.problem);
  if (!planned) return LOOKING;
  if (event) return underway(event);
  const [problem] = [...(block?.problems ?? []), ...planned.problems];
  if (!planned.takes_part && planned.partake) {
    return { tone: "quiet", state: "Not taking part", detail: problem?.message ?? "", actions: ["partake"] };
  }
  if (problem) return wrong(problem);
  if (!block) return seen.typed ? { tone: "quiet", state: "Not a block here", detail: PLAIN } : LOOKING;
  if (block.run) return { tone: "waiting", state: "Queued", detail: block.why, actions: ["cancel"] };
  const settled = asItStands(block, seen.page?.verdict ?? null);
  if (state.hello.trusted) return settled;
  const actions = (settled.actions ?? []).map((action) => (action === "run" ? "trust" : action));
  return { ...settled, hint: "Nothing runs before you trust this vault.", actions };
}

/** With no daemon that could be asked: what there is, and the mend. */
function apart(state: State, page: Page | null): Standing {
  const last = page ? `Last result: ${page.failed ? "failed" : (page.verdict ?? "no claims")}.` : "No result yet.";
  const quiet = { tone: "quiet" as const, detail: last };
  switch (state.is) {
    case "unpaired":
      return { ...quiet, state: "Not paired", hint: "Its daemon does not know this device yet.", actions: ["pair"] };
    case "absent":
      return { ...quiet, state: "No daemon", hint: "Start it:", command: "vaultlab watch", actions: ["copy", "retry"] };
    case "stranger":
      return { ...quiet, state: "Not recognised", hint: "The daemon no longer knows this device.", actions: ["pair"] };
    case "clock":
      return { ...quiet, state: "Clocks differ", hint: sentences(state.problem), actions: ["retry"] };
    case "mismatch":
      return { ...quiet, state: "Versions differ", hint: update(state.update), actions: ["retry"] };
    case "viewer":
      return page ? { ...held(page.verdict), state: "Result", detail: last } : { ...quiet, state: "No result" };
    default:
      return { ...quiet, state: "Connecting…" };
  }
}

/** What is wrong, and the mend. */
export function sentences({ message, hint }: Problem): string {
  return [message, hint].filter(Boolean).join(" ");
}

export function update(side: "plugin" | "daemon"): string {
  return side === "plugin"
    ? "Update this plugin: the daemon is newer."
    : "Update vaultlab on this machine and start its daemon anew: this plugin is newer.";
}

function wrong(problem: Problem): Standing {
  const { message, hint, line } = problem;
  return { tone: "failed", state: "Cannot run", detail: message, hint, line, wrong: true };
}

function underway(event: Event): Standing {
  const { kind, phase, done, total } = event;
  const actions: Action[] = ["cancel"];
  if (kind === "running") {
    const progress = { done: total ? done : null, total, text: far(event) };
    return { tone: "running", state: "Running", detail: capital(phase), progress, actions };
  }
  if (kind === "loading") {
    return { tone: "running", state: "Loading the model", detail: capital(phase), progress: { done: null, total: null, text: "" }, actions };
  }
  const place = event.place ? `${ordinal(event.place)} in line` : "";
  return { tone: "waiting", state: "Queued", detail: [place, event.why].filter(Boolean).join(": "), actions };
}

function far({ done, total, eta_s }: Event): string {
  const count = done !== null && total ? `${grouped(done)} of ${grouped(total)}` : "";
  return [count, eta_s === null ? "" : `${left(eta_s)} left`].filter(Boolean).join(" · ");
}

function asItStands(block: Block, verdict: Verdict | null): Standing {
  const said = { detail: block.state === "stale" ? block.why : capital(block.why) }; // that one begins with a field
  switch (block.state) {
    case "fresh":
      return { ...held(verdict), actions: ["run", "why"] };
    case "reworded":
      return { ...said, tone: "fresh", state: "To be judged anew", actions: ["why"] };
    case "missing":
      return { tone: "stale", state: "Not run yet", actions: ["run"] };
    case "failed":
      return { ...said, tone: "failed", state: "Failed", actions: ["run", "why"] };
    case "outdated":
      return { ...said, tone: "stale", state: "New version", actions: ["run", "why"] };
    case "reread":
      return { ...said, tone: "stale", state: "Its texts changed", actions: ["run", "why"] };
    case "large":
      return { ...said, tone: "stale", state: "Waits to be asked for", actions: ["run", "why"] };
    default:
      return { ...said, tone: "stale", state: "Out of date", actions: ["run", "why"] };
  }
}

/** A result that answers its block as it stands. Whether a claim holds is another matter than whether it is fresh. */
function held(verdict: Verdict | null): Standing {
  if (verdict === "refuted") return { tone: "refuted", state: "Up to date, refuted" };
  if (verdict === "undecided") return { tone: "undecided", state: "Up to date, undecided" };
  return { tone: "fresh", state: "Up to date" };
}

/** The block of a plan that has this hash; of several alike the one whose fence begins in this line. */
export function find(planned: Planned, sha256: string, start: number | null): Block | null {
  const alike = planned.blocks.filter((block) => block.sha256 === sha256);
  return alike.find((block) => block.start === start) ?? alike[0] ?? null;
}

function shown(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value).replace(/"/g, "").replace(/,/g, ", ");
}

/** The id that a block's text gives it; empty where only the daemon knows. */
export function idOf(source: string): string {
  return read(source).id;
}

interface Said {
  id: string;
  experiment: string;
  title: string;
  fields: string[];
  claims: string[];
}

/** A block's text as its author wrote it: no value is read as anything but words. */
function read(source: string): Said {
  const said: Said = { id: "", experiment: "", title: "", fields: [], claims: [] };
  let first = true;
  let within = "";
  for (const line of source.split("\n")) {
    const [, name = "", value = ""] = /^([A-Za-z_][\w-]*):(?:\s+(.*))?$/.exec(line.trimEnd()) ?? [];
    const [, item] = /^\s*-\s+(.*)$/.exec(line.trimEnd()) ?? [];
    if (name) {
      within = name;
      const plain = unquoted(value);
      if (first && !SHARED.includes(name)) [said.experiment, said.id] = [name, plain];
      else if (name === "id" || name === "experiment" || name === "title") said[name] = plain;
      else if (name === "sweep") said.fields.push(`${name} ${plain}`.trim());
      else if (!SHARED.includes(name)) said.fields.push(`${name} ${plain === "|" ? "…" : plain}`.trim());
      first = false;
    } else if (within === "expect" && item) said.claims.push(unquoted(item));
    else if (within === "sweep" && line.trim()) said.fields.push(line.trim().replace(":", ""));
  }
  return said;
}

function unquoted(value: string): string {
  return /^(["']).*\1$/.test(value) ? value.slice(1, -1) : value;
}

function words(name: string): string {
  return capital(name.replace(/[-_]+/g, " ").trim());
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function ordinal(place: number): string {
  const ending = { 1: "st", 2: "nd", 3: "rd" }[place % 100 > 10 && place % 100 < 14 ? 0 : place % 10];
  return `${place}${ending ?? "th"}`;
}

/** A count with its thousands apart, as the result notes write it. */
function grouped(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

export function left(seconds: number): string {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
