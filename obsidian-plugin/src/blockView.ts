/** A block as it stands in a note: Reading view, Live Preview, an embed, a canvas or a window of its own. */

import { MarkdownRenderChild, Notice, setIcon, type MarkdownPostProcessorContext } from "obsidian";
import { find, idOf, sight, type Action, type Sight, type Tone } from "./block";
import { Refusal } from "./client";
import { dataOf, FigureView } from "./figureView";
import type { Lab } from "./lab";
import { page, told, type Page, type Verdict } from "./page";
import { plain } from "./notes";
import type { Artifact, Block, Planned, Problem } from "./protocol";
import { prose } from "./prose";
import { sha256 } from "./sign";

/** What a block can ask of the rest of the plugin. */
export interface Hands {
  pair: () => void;
  trust: () => void;
  partake: (path: string) => void;
  goto: (path: string, line: number) => void;
  /** What to type to start the daemon of this vault. */
  command: () => string;
}

const ICONS: Record<Tone, string> = {
  fresh: "check-circle-2",
  refuted: "x",
  undecided: "help-circle",
  stale: "circle-dashed",
  waiting: "clock",
  running: "loader",
  failed: "alert-triangle",
  quiet: "circle",
};
const VERDICTS: Record<Verdict, string> = { supported: "check", refuted: "x", undecided: "help-circle" };
const PARTS = [
  ["What it ran with", "#^provenance"],
  ["Earlier runs", "#^history"],
] as const;
const LABELS: Record<Action, string> = {
  run: "Run",
  cancel: "Cancel",
  open: "Open result",
  why: "Why",
  pair: "Pair…",
  trust: "Trust this vault…",
  retry: "Try again",
  copy: "Copy command",
  partake: "Let this note take part…",
  explore: "Explore the figure",
};
/** What gets a block on its way. */
const FORWARD: readonly Action[] = ["run", "pair", "trust", "partake"];

export class BlockView extends MarkdownRenderChild {
  private page: Page | null = null;
  private block: Block | null = null;
  private sha256 = "";
  private shown = "";
  private explained = false;
  /** What was refused, and the plan that stood then: it is said until there is another, or a run. */
  private said: { problem: Problem; under: Planned | null } | null = null;
  private figure: FigureView | null = null;
  private figureOf = "";
  private opening = false;
  private outer!: HTMLElement;
  private card!: HTMLElement;
  private status!: HTMLElement;

  constructor(
    container: HTMLElement,
    private readonly source: string,
    private readonly context: MarkdownPostProcessorContext,
    private readonly lab: Lab,
    private readonly hands: Hands,
    private readonly gone: () => void,
  ) {
    super(container);
  }

  override onload(): void {
    const { app } = this.lab.desk;
    this.outer = this.containerEl.createDiv({ cls: "vaultlab-block", attr: { role: "group" } });
    this.card = this.outer.createDiv();
    this.status = this.outer.createDiv({ cls: "vaultlab-unseen", attr: { role: "status" } });
    this.register(this.lab.watch(this.path, () => this.render()));
    this.registerEvent(
      app.metadataCache.on("changed", (file) => {
        if (file.basename === this.id) void this.reread();
      }),
    );
    this.render();
    void this.begin();
  }

  /** What is left where the plugin goes: the text that its author wrote. */
  override onunload(): void {
    this.outer.remove();
    this.containerEl.createEl("pre").createEl("code", { text: this.source });
    this.gone();
  }

  private async begin(): Promise<void> {
    this.sha256 = await sha256(this.source);
    await this.reread();
  }

  private get path(): string {
    return this.context.sourcePath;
  }

  private get id(): string {
    return this.block?.id ?? idOf(this.source);
  }

  private async reread(): Promise<void> {
    this.page = this.id ? await page(this.lab.desk.app, this.id, this.path) : null;
    this.render();
  }

  private render(): void {
    const known = this.lab.known(this.path);
    const before = this.id;
    const start = this.context.getSectionInfo(this.containerEl)?.lineStart ?? null;
    this.block = known && find(known.planned, this.sha256, start === null ? null : start + 1);
    if (this.id !== before) void this.reread();
    if (this.figure && this.block && this.block.last?.key !== this.figureOf) this.close(); // there are other numbers now
    const name = this.block?.experiment;
    const planned = known?.planned ?? null;
    const event = this.id ? this.lab.event(this.path, this.id) : null;
    if (event || this.said?.under !== planned) this.said = null;
    const seen = sight(this.source, {
      state: this.lab.link.state,
      planned,
      block: this.block,
      event,
      page: this.block?.last ? told(this.block.last) : this.page,
      experiment: (name && this.lab.experiments?.experiments[name]) || null,
      typed: known !== null && !this.block && plain(known.text).includes(this.source),
      problem: this.lab.problem(this.path),
      said: this.said?.problem ?? null,
    });
    const shown = JSON.stringify([seen, this.explained, this.figure !== null, this.opening]);
    if (shown === this.shown) return;
    this.shown = shown;
    this.draw(seen);
  }

  private draw(seen: Sight): void {
    const { outer, card } = this;
    const focused = card.querySelector<HTMLElement>("button:focus")?.dataset.action;
    card.empty();
    outer.dataset.tone = seen.tone;
    outer.setAttr("aria-label", `Experiment: ${seen.title}`);
    const head = card.createDiv("vaultlab-head");
    setIcon(head.createSpan({ cls: "vaultlab-icon", attr: { "aria-hidden": "true" } }), ICONS[seen.tone]);
    const name = head.createDiv("vaultlab-name");
    name.createSpan({ cls: "vaultlab-title", text: seen.title });
    name.createSpan({ cls: "vaultlab-state", text: seen.state });
    // A screen reader is told when this changes, and only then: not with every step of a run.
    const said = [`${seen.title}: ${seen.state}`, ...(seen.wrong ? [seen.detail, seen.hint] : [])].filter(Boolean).join(". ");
    if (this.status.textContent !== said) this.status.setText(said);
    if (seen.what) card.createDiv({ cls: "vaultlab-what", text: seen.what });
    list(card, "vaultlab-fields", seen.fields);
    claims(card, seen.claims);
    this.details(seen);
    progress(card, seen);
    this.actions(seen, focused);
  }

  private details(seen: Sight): void {
    const { detail, hint, line, command } = seen;
    if (!detail && !hint && !this.explained) return;
    const details = this.card.createDiv("vaultlab-details");
    if (line !== null) {
      const place = details.createEl("a", { cls: "vaultlab-line", text: `Line ${line}`, href: "#" });
      place.addEventListener("click", (event) => {
        event.preventDefault();
        this.hands.goto(this.path, line);
      });
    }
    if (detail) prose(details.createSpan("vaultlab-detail"), detail);
    if (hint) prose(details.createSpan("vaultlab-hint"), hint);
    if (command) details.createEl("code", { cls: "vaultlab-command", text: this.hands.command() });
    if (this.explained) this.explain(details, detail);
  }

  private explain(details: HTMLElement, said: string): void {
    const why = this.block?.why || "Nothing that it asks has changed since it ran.";
    if (why !== said) prose(details.createSpan("vaultlab-detail"), why);
    for (const [text, part] of PARTS) {
      const link = details.createEl("a", { text, href: "#" });
      link.addEventListener("click", (event) => {
        event.preventDefault();
        void this.open(part);
      });
    }
  }

  private label(action: Action): string {
    if (action !== "explore") return LABELS[action];
    return this.opening ? "Opening the figure…" : this.figure ? "Close the figure" : LABELS.explore;
  }

  private actions({ actions, tone }: Sight, focused: string | undefined): void {
    if (!actions.length) return;
    const forward = tone === "stale" || tone === "quiet" ? actions.find((action) => FORWARD.includes(action)) : null;
    const row = this.card.createDiv("vaultlab-actions");
    for (const action of actions) {
      const button = row.createEl("button", { text: this.label(action), attr: { type: "button" } });
      button.dataset.action = action;
      button.toggleClass("mod-cta", action === forward);
      if (action === "why") button.setAttr("aria-expanded", String(this.explained));
      if (action === "explore") button.setAttr("aria-disabled", String(this.opening));
      button.addEventListener("click", () => void this.act(action));
      if (action === focused) button.focus();
    }
    if (focused && !actions.some((action) => action === focused)) row.querySelector("button")?.focus();
  }

  private async act(action: Action): Promise<void> {
    this.said = null;
    try {
      if (action === "run") await this.lab.run(this.path, this.id);
      else if (action === "cancel") await this.cancel();
      else if (action === "open") await this.open();
      else if (action === "why") this.explained = !this.explained;
      else if (action === "explore") await this.explore();
      else if (action === "pair") this.hands.pair();
      else if (action === "trust") this.hands.trust();
      else if (action === "retry") this.lab.link.retry();
      else if (action === "partake") this.hands.partake(this.path);
      else if (action === "copy") await this.copy();
    } catch (error) {
      const under = this.lab.known(this.path)?.planned ?? null;
      if (error instanceof Refusal) this.said = { problem: error.problem, under };
      else new Notice("That did not work: nobody answered.");
    }
    this.render();
  }

  private async cancel(): Promise<void> {
    const run = this.lab.event(this.path, this.id)?.run ?? this.block?.run;
    if (run) await this.lab.cancel(run);
  }

  private async copy(): Promise<void> {
    await navigator.clipboard.writeText(this.hands.command());
    new Notice("Copied.");
  }

  private async open(part = ""): Promise<void> {
    const path = this.block?.last?.note ?? this.page?.path;
    if (path) await this.lab.desk.app.workspace.openLinkText(path + part, this.path);
  }

  /** Open the interactive figure of the last result, or close it. */
  private async explore(): Promise<void> {
    if (this.figure) return this.close();
    if (this.opening) return;
    const { id, lab } = this;
    const key = this.block?.last?.key ?? "";
    this.opening = true;
    this.render();
    const asked = lab.daemon.ask<Artifact>("GET", `/v1/blocks/${id}/artifacts/data`).catch(absent);
    const found = await asked.finally(() => (this.opening = false));
    const data = found && dataOf(found.content);
    if (!data) throw new Refusal(404, NOTHING);
    this.figureOf = key;
    this.figure = this.addChild(new FigureView(this.outer, lab.desk.app, data, this.block?.title ?? id));
  }

  private close(): void {
    if (this.figure) this.removeChild(this.figure);
    this.figure = null;
  }
}

/** A result without data: of many dimensions, or the store has let it go. */
const NOTHING = {
  message: "This result has nothing to explore.",
  hint: "Run the block again if its data may have been cleared.",
  line: null,
  field: null,
};

function absent(error: unknown): null {
  if (error instanceof Refusal && error.status === 404) return null;
  throw error;
}

function list(container: HTMLElement, cls: string, items: readonly string[]): void {
  if (!items.length) return;
  const list = container.createEl("ul", cls);
  for (const text of items) list.createEl("li", { text });
}

function claims(container: HTMLElement, found: Sight["claims"]): void {
  if (!found.length) return;
  const judged = found.some((claim) => claim.verdict);
  const list = container.createEl("ul", { cls: "vaultlab-claims", attr: { "aria-label": "Claims" } });
  for (const { text, verdict } of found) {
    const item = list.createEl("li", { attr: { "data-verdict": verdict ?? "none" } });
    setIcon(item.createSpan({ attr: { "aria-hidden": "true" } }), verdict ? VERDICTS[verdict] : "minus");
    const claim = item.createDiv();
    claim.createSpan({ text });
    if (judged) claim.createSpan({ cls: "vaultlab-aside", text: verdict ?? "not judged yet" });
  }
}

function progress(container: HTMLElement, seen: Sight): void {
  if (!seen.progress) return;
  const { done, total, text } = seen.progress;
  const bar = container.createDiv("vaultlab-progress");
  const drawn = bar.createEl("progress", { attr: { "aria-label": seen.state } });
  if (done !== null && total !== null) drawn.setAttrs({ value: String(done), max: String(total) });
  if (text) bar.createSpan({ text });
}
