/** The lab beside the notes: what runs and waits, and every result of the vault, the refuted first. */

import { ItemView, TFile, debounce, setIcon, type WorkspaceLeaf } from "obsidian";
import { idOf, left } from "./block";
import { goto, said } from "./commands";
import { fences } from "./fence";
import type { Lab } from "./lab";
import type { Event } from "./protocol";
import { prose } from "./prose";
import { Results, shown, standing, type ResultRow } from "./results";
import { statusWords } from "./status";

export const LAB_VIEW = "vaultlab-lab";

const ICONS: Record<string, string> = {
  refuted: "x",
  failed: "alert-triangle",
  undecided: "help-circle",
  supported: "check",
  done: "circle",
};
const FILTERS: Record<string, string> = {
  "": "All results",
  refuted: "Refuted",
  failed: "Failed",
  undecided: "Undecided",
  supported: "Supported",
  done: "No claims",
};
const PAUSE_MS = 200;

export class LabView extends ItemView {
  private query = "";
  private only = "";
  private results: Results | null = null;
  private state!: HTMLElement;
  private queue!: HTMLElement;
  private list!: HTMLElement;

  constructor(
    leaf: WorkspaceLeaf,
    private readonly lab: Lab,
  ) {
    super(leaf);
  }

  override getViewType(): string {
    return LAB_VIEW;
  }

  override getDisplayText(): string {
    return "Lab";
  }

  override getIcon(): string {
    return "flask-conical";
  }

  override onOpen(): Promise<void> {
    const { app, contentEl } = this;
    contentEl.empty();
    contentEl.addClass("vaultlab-lab");
    this.state = contentEl.createDiv("vaultlab-lab-state");
    this.queue = contentEl.createEl("ul", { cls: "vaultlab-queue", attr: { "aria-label": "What runs and waits" } });
    this.filters(contentEl.createDiv("vaultlab-filters"));
    this.list = contentEl.createEl("ul", { cls: "vaultlab-results", attr: { "aria-label": "Results" } });
    const redraw = debounce(() => this.rows(), PAUSE_MS, false);
    this.register(() => redraw.cancel());
    const results = (this.results = new Results(app, redraw));
    this.registerEvent(app.metadataCache.on("changed", (file, _text, cache) => results.take(file, cache)));
    this.registerEvent(app.vault.on("delete", (file) => results.drop(file.path)));
    this.registerEvent(app.vault.on("rename", (file, from) => results.moved(file, from)));
    this.register(this.lab.watch(null, () => this.now()));
    this.now();
    this.rows();
    return Promise.resolve();
  }

  override onClose(): Promise<void> {
    this.contentEl.empty();
    return Promise.resolve();
  }

  private filters(container: HTMLElement): void {
    const search = container.createEl("input", { type: "search", placeholder: "Filter results", attr: { "aria-label": "Filter results" } });
    search.addEventListener("input", () => {
      this.query = search.value;
      this.rows();
    });
    const select = container.createEl("select", { cls: "dropdown", attr: { "aria-label": "Which results" } });
    for (const [value, text] of Object.entries(FILTERS)) select.createEl("option", { value, text });
    select.addEventListener("change", () => {
      this.only = select.value;
      this.rows();
    });
  }

  /** What runs and what waits. */
  private now(): void {
    const { words, detail } = statusWords(this.lab.link.state, this.lab.underway);
    this.state.setText(words);
    this.state.setAttr("aria-label", detail || words);
    const focused = this.queue.querySelector<HTMLElement>(":focus");
    const run = focused?.closest("li")?.dataset.run;
    this.queue.empty();
    const place = ({ kind, place }: Event) => (kind === "queued" ? (place ?? 1e6) : -1);
    for (const event of this.lab.underway.sort((one, other) => place(one) - place(other))) this.run(event);
    if (focused && run) this.queue.querySelector<HTMLElement>(`[data-run="${run}"] ${focused.tagName}`)?.focus();
  }

  private run(event: Event): void {
    const item = this.queue.createEl("li", { attr: { "data-run": event.run } });
    const { id, path, kind, phase, done, total, eta_s, why, run } = event;
    const name = item.createEl("a", { cls: "vaultlab-row-title", text: id ?? "", href: "#" });
    name.addEventListener("click", (clicked) => {
      clicked.preventDefault();
      if (path && id) void this.toBlock(path, id);
    });
    const rest = eta_s === null ? "" : `${left(eta_s)} left`;
    const told = kind === "queued" ? ["waiting", why] : [phase || "running", rest];
    prose(item.createSpan("vaultlab-aside"), told.filter(Boolean).join(" · "));
    if (kind === "running" && done !== null && total) {
      item.createEl("progress", { attr: { value: String(done), max: String(total), "aria-label": `${id}: how far it is` } });
    }
    const cancel = item.createEl("button", { cls: "clickable-icon", attr: { type: "button", "aria-label": `Cancel ${id}` } });
    setIcon(cancel, "x");
    cancel.addEventListener("click", () => {
      if (run) void said(this.lab.cancel(run));
    });
  }

  private rows(): void {
    if (!this.results) return;
    const found = shown(this.results.rows.values(), this.query, this.only);
    this.list.empty();
    for (const one of found) this.row(one);
    if (!found.length) {
      const none = this.results.rows.size ? "No result fits." : "No results yet. Insert an experiment in a note and run it.";
      this.list.createEl("li", { cls: "vaultlab-aside", text: none });
    }
  }

  private row(result: ResultRow): void {
    const word = standing(result);
    const item = this.list.createEl("li", { attr: { "data-verdict": word } });
    setIcon(item.createSpan({ cls: "vaultlab-icon", attr: { "aria-hidden": "true" } }), ICONS[word] ?? "circle");
    const title = item.createEl("a", { cls: "vaultlab-row-title", text: result.title, href: "#" });
    title.addEventListener("click", (event) => {
      event.preventDefault();
      void this.toBlock(result.note, result.id, result.path);
    });
    const note = result.note.slice(result.note.lastIndexOf("/") + 1);
    const told = [word, ...(result.accepted ? ["accepted"] : []), note].filter(Boolean).join(" · ");
    item.createSpan({ cls: "vaultlab-aside", text: told });
  }

  /** Go to a block in its note; where it cannot be found, to its result. */
  private async toBlock(link: string, id: string, result = ""): Promise<void> {
    const { app } = this;
    const file = app.metadataCache.getFirstLinkpathDest(link.replace(/\.md$/, ""), result);
    const lines = file instanceof TFile ? (await app.vault.cachedRead(file)).split("\n") : [];
    const fence = fences(lines).find(({ start, end }) => idOf(lines.slice(start, end - 1).join("\n")) === id);
    if (file && fence) await goto(this.lab, file.path, fence.start);
    else await app.workspace.openLinkText(result || link, "");
  }
}
