/** Every state that a block can be in, one below the other. */

import "../app/dom";
import type { MarkdownPostProcessorContext } from "obsidian";
import { BlockView } from "../../src/blockView";
import type { Lab } from "../../src/lab";
import type { State } from "../../src/link";
import type { Block, Event, Hello, Last, Planned, Problem } from "../../src/protocol";
import { sha256 } from "../../src/sign";
import { App, memory } from "../app/obsidian";
import { drawIcons } from "./icons";

const CLAIMS = ["represented = 5 in 90% of seeds", "every dimensionality = 0.40 +- 0.02", "loss < 0.01"];
const SOURCE = `superposition: pentagon\nfeatures: 5\nhidden: 2\nsparsity: 95%\nseeds: 16\nexpect:\n${CLAIMS.map((one) => `  - ${one}`).join("\n")}`;
const FIELDS = { features: 5, hidden: 2, sparsity: "95%", seeds: 16 };
const TITLE = "Five sparse features fit in two dimensions";
const QUESTION = "Superposition: does a layer hold more features than it has dimensions?";
const ID = "pentagon";
const PATH = "Note.md";

const hello = (trusted = true) => ({ trusted }) as Hello;
const connected: State = { is: "connected", hello: hello() };
const problem = (message: string, hint: string, line: number | null = null): Problem => ({ message, hint, line, field: null });

function last(...verdicts: (Last["verdict"] & string)[]): Last {
  const claims = Object.fromEntries(verdicts.map((verdict, at) => [CLAIMS[at] ?? "", verdict]));
  const order = ["refuted", "undecided", "supported"] as const;
  const verdict = order.find((one) => verdicts.includes(one)) ?? null;
  return { note: "vaultlab/pentagon.md", status: "done", key: "", verdict, claims, headline: {}, figures: {} };
}

interface Case {
  name: string;
  state?: State;
  block?: Partial<Block>;
  event?: Partial<Event>;
  planned?: Partial<Planned>;
  problem?: Problem;
  source?: string;
}

const held = last("supported", "supported", "supported");
const CASES: Case[] = [
  { name: "fresh", block: { state: "fresh", last: held } },
  { name: "fresh, a claim refuted", block: { state: "fresh", last: last("supported", "supported", "refuted") } },
  { name: "fresh, a claim undecided", block: { state: "fresh", last: last("supported", "undecided", "supported") } },
  { name: "not run yet", block: { state: "missing", why: "it has not run yet" } },
  { name: "stale", block: { state: "stale", why: "sparsity 90% → 95%, seeds 8 → 16", last: held } },
  { name: "reworded", block: { state: "reworded", why: "its claims have changed", last: last("supported", "supported") } },
  { name: "a new version", block: { state: "outdated", why: "`superposition` is version 2 now, and was 1 when this ran", last: held } },
  { name: "texts changed", block: { state: "reread", why: "4 of 312 notes changed", last: held } },
  { name: "queued", event: { kind: "queued", place: 2, why: "asked for by hand; behind `dense`" } },
  { name: "loading", event: { kind: "loading", phase: "loading smollm2-135m" } },
  { name: "running", event: { kind: "running", phase: "training", done: 1200, total: 3000, eta_s: 12 } },
  { name: "waits", block: { state: "large", why: "its sweep has 200 points, and more than 50 run only when asked for", last: held } },
  { name: "failed", block: { state: "failed", why: "it cannot run as it is; its result note says why", last: { ...last(), status: "failed" } } },
  { name: "cannot run", block: { state: "error", problems: [problem("`superposition` has no field `sparsty`.", "Did you mean `sparsity`?", 12)] } },
  { name: "takes no part", planned: { takes_part: false, partake: { base_sha256: "", offset: 0, insert: "" }, problems: [problem("This note takes no part, so nothing in it runs.", "Add to its properties: `tags: [experiment]`")] } },
  { name: "untrusted", state: { is: "connected", hello: hello(false) }, block: { state: "missing" } },
  { name: "not paired", state: { is: "unpaired" } },
  { name: "no daemon", state: { is: "absent" } },
  { name: "connecting", state: { is: "searching" } },
  { name: "not recognised", state: { is: "stranger" } },
  { name: "clocks", state: { is: "clock", problem: problem("The clock of this device and the daemon's are 11 min apart.", "Set whichever is wrong.") } },
  { name: "versions", state: { is: "mismatch", update: "plugin" } },
  { name: "a phone", state: { is: "viewer" } },
];

async function draw(container: HTMLElement, one: Case): Promise<void> {
  container.createEl("p", { cls: "gallery-name", text: one.name });
  const nothing = { problems: [], fields: FIELDS, run: null, last: null, edit: null, why: "" };
  const first = { id: ID, experiment: "superposition", title: TITLE, start: 1, end: 9, sha256: await sha256(SOURCE) };
  const block: Block = { state: "missing", ...first, ...nothing, ...one.block };
  const planned = { takes_part: true, problems: [], blocks: [block], partake: null, ...one.planned };
  const quiet = { number: "", path: PATH, id: ID, run: "1", place: null, why: "", phase: "", done: null, total: null };
  const event = one.event && { ...quiet, eta_s: null, memory_bytes: null, problem: null, edit: null, kind: "running", ...one.event };
  const lab = {
    desk: { app: new App(memory(), "/home/you/Notes") },
    link: { state: one.state ?? connected },
    experiments: { experiments: { superposition: { title: QUESTION } }, broken: {} },
    watch: () => () => undefined,
    known: () => ({ text: SOURCE, planned }),
    event: () => event ?? null,
    problem: () => one.problem ?? null,
  };
  const hands = { pair: () => undefined, trust: () => undefined, goto: () => undefined, partake: () => undefined, command: () => "vaultlab watch /home/you/Notes" };
  const context = { sourcePath: PATH, getSectionInfo: () => null };
  const element = container.createDiv();
  new BlockView(element, SOURCE, context as unknown as MarkdownPostProcessorContext, lab as unknown as Lab, hands, () => undefined).load();
}

const workspace = document.body.appendChild(document.createElement("div"));
workspace.className = "workspace gallery";
void Promise.all(
  CASES.map(async (one) => {
    const place = workspace.createDiv();
    await draw(place, one);
  }),
).then(() => {
  window.setTimeout(() => {
    drawIcons(document);
    document.body.dataset.ready = "yes";
  }, 200);
});
