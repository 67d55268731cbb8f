/** Insert an experiment: pick one, read what it does, fill in its fields; the block goes in where the cursor is. */

import { Modal, Notice, Setting, SuggestModal, type App, type Editor, type MarkdownFileInfo } from "obsidian";
import type { Edits } from "./edits";
import { fenceAt, fences } from "./fence";
import type { Lab } from "./lab";
import type { Example, Experiment } from "./protocol";
import { prose } from "./prose";
import { Question } from "./question";
import { fieldsOf, written, type Field } from "./schema";

/** What a form has: the title, the claims, and of the fields those that are not left as they are. */
export interface Filled {
  title: string;
  values: Record<string, string>;
  claims: string;
}

type Picked = [name: string, experiment: Experiment];

/** Pick an experiment by its name or its question. */
export class Picker extends SuggestModal<Picked> {
  constructor(
    app: App,
    private readonly lab: Lab,
    private readonly into: Place,
  ) {
    super(app);
    this.setPlaceholder("Which experiment?");
    this.emptyStateText = "No experiment is called so.";
  }

  override getSuggestions(query: string): Picked[] {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    const all = Object.entries(this.lab.experiments?.experiments ?? {});
    return all.filter(([name, { title }]) => words.every((word) => `${name} ${title}`.toLowerCase().includes(word)));
  }

  override renderSuggestion([name, { title }]: Picked, el: HTMLElement): void {
    el.addClass("vaultlab-offer");
    el.createDiv({ text: name });
    el.createDiv({ cls: "vaultlab-aside", text: title });
  }

  override onChooseSuggestion([name, experiment]: Picked): void {
    new Form(this.app, this.lab, name, experiment, this.into).open();
  }
}

/** Where a block goes, and who makes the note take part if it does not. */
export interface Place {
  editor: Editor;
  info: MarkdownFileInfo;
  edits: Edits;
}

class Form extends Modal {
  private filled: Filled = { title: "", values: {}, claims: "" };

  constructor(
    app: App,
    private readonly lab: Lab,
    private readonly name: string,
    private readonly experiment: Experiment,
    private readonly into: Place,
  ) {
    super(app);
  }

  override onOpen(): void {
    this.setTitle(this.experiment.title);
    this.modalEl.addClass("vaultlab-form");
    this.draw();
  }

  private draw(): void {
    const { contentEl, experiment } = this;
    contentEl.empty();
    const manual = contentEl.createEl("details");
    manual.createEl("summary", { text: "What it does, and how to read its figures" });
    explained(manual.createDiv("vaultlab-manual"), experiment.page);
    this.examples();
    new Setting(contentEl).setName("Title").setDesc("What the result is called.").setClass("vaultlab-wide").addText((text) => {
      text.setValue(this.filled.title).onChange((value) => (this.filled.title = value));
      text.inputEl.setAttr("aria-label", "Title");
    });
    for (const field of fieldsOf(experiment)) this.control(field);
    const help = `One a line, such as ${metricsOf(experiment).slice(0, 1).join("")} > 0. It measures ${metricsOf(experiment).join(", ")}.`;
    new Setting(contentEl).setName("Claims").setDesc(help).setClass("vaultlab-wide").addTextArea((text) => {
      text.setValue(this.filled.claims).onChange((value) => (this.filled.claims = value));
      text.inputEl.setAttrs({ "aria-label": "Claims", rows: "3" });
    });
    new Setting(contentEl).addButton((button) =>
      button.setButtonText("Insert").setCta().onClick(() => void this.insert()),
    );
  }

  private examples(): void {
    const examples = this.experiment.examples.map(exampleOf);
    if (!examples.length) return;
    const setting = new Setting(this.contentEl).setName("Begin with").setDesc("An example whose answer is known.").setClass("vaultlab-wide");
    setting.addDropdown((dropdown) => {
      dropdown.addOption("", "Nothing");
      for (const [at, { title }] of examples.entries()) dropdown.addOption(String(at), title);
      dropdown.onChange((at) => {
        const chosen = examples[Number(at)];
        this.filled = at && chosen ? structuredClone(chosen) : { title: "", values: {}, claims: "" };
        this.draw();
      });
      dropdown.selectEl.setAttr("aria-label", "Begin with");
      const now = examples.findIndex(({ title }) => title === this.filled.title);
      dropdown.setValue(now < 0 ? "" : String(now));
    });
  }

  private control(field: Field): void {
    const { name } = field;
    const { values } = this.filled;
    const usual = written(field.default);
    const described = `${field.help} Takes ${field.takes}.`;
    const setting = new Setting(this.contentEl).setName(name).setDesc(described);
    const keep = (value: string) => {
      if (value.trim() === "" || value === usual) delete values[name];
      else values[name] = value;
    };
    const { state } = this.lab.link;
    const models = state.is === "connected" ? state.hello.models : [];
    const listed = field.kind === "model" ? models : field.kind === "flag" ? ["true", "false"] : field.choices;
    if (!listed.length) {
      setting.addText((text) => {
        text.setPlaceholder(usual).setValue(values[name] ?? "").onChange(keep);
        text.inputEl.setAttrs({ "aria-label": name, "aria-description": described });
      });
      return;
    }
    setting.addDropdown((dropdown) => {
      for (const value of new Set([usual, ...listed, ...(values[name] ? [values[name]] : [])])) dropdown.addOption(value, value);
      dropdown.setValue(values[name] ?? usual).onChange(keep);
      dropdown.selectEl.setAttrs({ "aria-label": name, "aria-description": described });
    });
  }

  private async insert(): Promise<void> {
    const { editor, info, edits } = this.into;
    const id = free(slug(this.filled.title || this.name), (one) => this.taken(one));
    const at = this.place();
    const line = editor.getLine(at);
    const text = (line.trim() ? "\n\n" : "") + composed(this.name, id, this.experiment, this.filled);
    editor.replaceRange(text, { line: at, ch: line.length });
    this.close();
    editor.focus();
    if (info.file) await offerTag(this.app, this.lab, edits, info.file.path);
  }

  /** The line behind which the block goes: the cursor's, or the last of the properties or of the block it is in. */
  private place(): number {
    const { editor, info } = this.into;
    const { line } = editor.getCursor();
    const properties = info.file && this.app.metadataCache.getFileCache(info.file)?.frontmatterPosition?.end.line;
    const fence = fenceAt(fences(editor.getValue().split("\n")), line + 1);
    return Math.min(Math.max(line, properties ?? 0, fence ? fence.end - 1 : 0), editor.lastLine());
  }

  private taken(id: string): boolean {
    const { editor } = this.into;
    return this.app.metadataCache.getFirstLinkpathDest(`${id}.md`, "") !== null || editor.getValue().includes(`: ${id}\n`);
  }
}

const PARTAKE = {
  title: "Let this note take part?",
  text: ["Blocks run only in notes with the tag “experiment”. This note does not have it yet."],
  yes: "Add the tag",
};

/** A manual page behind its title: what is set in from the edge is a formula or a table, the rest flows. */
function explained(container: HTMLElement, page: string): void {
  for (const part of page.split(/\n{2,}/).slice(1)) {
    if (/^\s/.test(part)) container.createEl("pre", { text: part });
    else prose(container.createEl("p"), part.replace(/\n/g, " "));
  }
}

/** A note takes part by its tag: where it lacks it, ask. */
export async function offerTag(app: App, lab: Lab, edits: Edits, path: string): Promise<void> {
  await lab.look(path);
  const partake = lab.known(path)?.planned.partake;
  if (!partake) return;
  const add = async () => {
    if (!(await edits.put(path, partake))) new Notice("The note has changed meanwhile: add the tag “experiment” yourself.");
  };
  new Question(app, PARTAKE, () => void add()).open();
}

/** The block as its author would write it: what is as it is by itself is left out. */
export function composed(name: string, id: string, experiment: Experiment, { title, values, claims }: Filled): string {
  const told = fieldsOf(experiment).filter((field) => field.name in values);
  const said = told.map((field) => `${field.name}: ${yaml(values[field.name] ?? "", field)}`);
  const claimed = claims.split("\n").map((claim) => claim.trim()).filter(Boolean);
  const lines = [
    `${name}: ${id}`,
    ...(title.trim() ? [`title: ${quoted(title.trim())}`] : []),
    ...said,
    ...(claimed.length ? ["expect:", ...claimed.map((claim) => `  - ${quoted(claim)}`)] : []),
  ];
  const marks = lines.flatMap((line) => line.match(/`+/g) ?? []).map((run) => run.length);
  const fence = "`".repeat(Math.max(3, ...marks.map((length) => length + 1)));
  return `${fence}vaultlab\n${lines.join("\n")}\n${fence}\n`;
}

/** A value as YAML reads it back: text is quoted where it would be taken for something else. */
function yaml(value: string, { kind }: Field): string {
  const named = kind === "words" && value.trim().startsWith("[[");
  return named || kind === "text" || kind === "choice" || kind === "model" ? quoted(value) : value.trim();
}

function quoted(text: string): string {
  const plain = /^[\p{L}(][^\n\r\t"'`]*$/u.test(text) && !/(: |:$| #|\s$)/.test(text);
  return plain && !/^(true|false|null|yes|no|on|off)$/i.test(text) ? text : JSON.stringify(text);
}

/** The form of an example whose answer is known. */
export function exampleOf({ title, fields, expect }: Example): Filled {
  const values = Object.entries(fields).map(([name, value]) => [name, written(value)]);
  return { title, values: Object.fromEntries(values) as Record<string, string>, claims: expect.join("\n") };
}

export function slug(title: string): string {
  const plain = title.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase();
  return plain.replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 60).replace(/-+$/, "") || "experiment";
}

function free(id: string, taken: (id: string) => boolean): string {
  let number = 1;
  while (taken(number === 1 ? id : `${id}-${number}`)) number++;
  return number === 1 ? id : `${id}-${number}`;
}

function metricsOf(experiment: Experiment): string[] {
  return (experiment.metrics as unknown as { name: string }[]).map(({ name }) => name);
}
