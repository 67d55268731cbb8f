/** As little of the app as the plugin meets: the vault on a disk of the test's, notes in real CodeMirror editors.
 *
 * It saves as the app does: in place, two seconds after the last keystroke. Reading view is not drawn: `read` hands the
 * fences of a note to the plugin's processor, as the app does for every view there is.
 */

import { history } from "@codemirror/commands";
import { Compartment, EditorState, StateField, type Extension } from "@codemirror/state";
import { EditorView } from "@codemirror/view";

export type Act = () => void;

/** Where a vault's bytes are. */
export interface Disk {
  list: (folder: string) => Promise<string[]>;
  read: (path: string) => Promise<string | null>;
  write: (path: string, text: string) => Promise<void>;
}

/** A disk in memory. */
export function memory(files: Record<string, string> = {}): Disk & { files: Record<string, string> } {
  return {
    files,
    list: (folder) =>
      Promise.resolve(Object.keys(files).filter((path) => !folder || path.startsWith(`${folder}/`))),
    read: (path) => Promise.resolve(files[path] ?? null),
    write: (path, text) => {
      files[path] = text;
      return Promise.resolve();
    },
  };
}

export class Events {
  private readonly heard = new Map<string, Set<(...what: never[]) => void>>();

  on(name: string, act: (...what: never[]) => void): { name: string; act: (...what: never[]) => void; of: Events } {
    this.heard.set(name, (this.heard.get(name) ?? new Set()).add(act));
    return { name, act, of: this };
  }

  offref(ref: { name: string; act: (...what: never[]) => void }): void {
    this.heard.get(ref.name)?.delete(ref.act);
  }

  trigger(name: string, ...what: unknown[]): void {
    for (const act of this.heard.get(name) ?? []) (act as (...what: unknown[]) => void)(...what);
  }

  get listeners(): number {
    return [...this.heard.values()].reduce((sum, acts) => sum + acts.size, 0);
  }
}

export class Component {
  private readonly ends: Act[] = [];
  private readonly children: Component[] = [];
  loaded = false;

  load(): void {
    if (this.loaded) return;
    this.loaded = true;
    this.onload();
    for (const child of this.children) child.load();
  }

  unload(): void {
    if (!this.loaded) return;
    this.loaded = false;
    for (const child of this.children.splice(0)) child.unload();
    for (const end of this.ends.splice(0).reverse()) end();
    this.onunload();
  }

  onload(): void {}
  onunload(): void {}

  register(end: Act): void {
    this.ends.push(end);
  }

  registerEvent(ref: ReturnType<Events["on"]>): void {
    this.register(() => ref.of.offref(ref));
  }

  registerDomEvent(target: EventTarget, name: string, act: (event: Event) => void): void {
    target.addEventListener(name, act);
    this.register(() => target.removeEventListener(name, act));
  }

  registerInterval(id: number): number {
    this.register(() => window.clearInterval(id));
    return id;
  }

  addChild<Child extends Component>(child: Child): Child {
    this.children.push(child);
    if (this.loaded) child.load();
    return child;
  }

  removeChild<Child extends Component>(child: Child): Child {
    this.children.splice(this.children.indexOf(child), 1);
    child.unload();
    return child;
  }
}

export class MarkdownRenderChild extends Component {
  constructor(readonly containerEl: HTMLElement) {
    super();
  }
}

export class TAbstractFile {
  constructor(readonly path: string) {}

  get name(): string {
    return this.path.slice(this.path.lastIndexOf("/") + 1);
  }
}

export class TFile extends TAbstractFile {
  readonly stat = { ctime: 0, mtime: 0, size: 0 };

  get basename(): string {
    return this.name.replace(/\.[^.]*$/, "");
  }

  get extension(): string {
    return this.name.slice(this.name.lastIndexOf(".") + 1);
  }
}

export class DataAdapter {
  constructor(
    readonly disk: Disk,
    private readonly base: string,
  ) {}

  getBasePath(): string {
    return this.base;
  }

  async exists(path: string): Promise<boolean> {
    return (await this.disk.list(path)).length > 0 || (await this.disk.read(path)) !== null;
  }

  async list(path: string): Promise<{ files: string[]; folders: string[] }> {
    const files = await this.disk.list(path);
    return { files: files.filter((one) => !one.slice(path.length + 1).includes("/")), folders: [] };
  }

  async read(path: string): Promise<string> {
    const text = await this.disk.read(path);
    if (text === null) throw new Error(`ENOENT: ${path}`);
    return text.replace(/^\ufeff/, "");
  }
}

export class FileSystemAdapter extends DataAdapter {}

export class Vault extends Events {
  readonly configDir = ".obsidian";
  readonly files = new Map<string, TFile>();
  private readonly seen = new Map<string, string>();

  constructor(
    readonly adapter: FileSystemAdapter,
    private readonly name: string,
  ) {
    super();
  }

  getName(): string {
    return this.name;
  }

  getAbstractFileByPath(path: string): TFile | null {
    return this.files.get(path) ?? null;
  }

  getFileByPath(path: string): TFile | null {
    return this.files.get(path) ?? null;
  }

  getMarkdownFiles(): TFile[] {
    return [...this.files.values()].filter((file) => file.extension === "md");
  }

  /** It does not read what it is just writing itself. */
  private writing: Promise<void> = Promise.resolve();

  async read(file: TFile): Promise<string> {
    await this.writing;
    return await this.adapter.read(file.path);
  }

  async readBinary(file: TFile): Promise<Uint8Array> {
    const text = await this.adapter.disk.read(file.path);
    if (text === null) throw new Error(`ENOENT: ${file.path}`);
    return new TextEncoder().encode(text);
  }

  async cachedRead(file: TFile): Promise<string> {
    return await this.read(file);
  }

  async process(file: TFile, change: (text: string) => string): Promise<string> {
    const text = change(await this.read(file));
    this.writing = this.adapter.disk.write(file.path, text);
    await this.writing;
    await this.look();
    return text;
  }

  async create(path: string, text: string): Promise<TFile> {
    await this.adapter.disk.write(path, text);
    await this.look();
    return this.files.get(path) as TFile;
  }

  /** See what has changed on the disk, as the app's own watcher does. */
  async look(): Promise<void> {
    for (const path of await this.adapter.disk.list("")) {
      if (path.split("/").some((part) => part.startsWith("."))) continue;
      await this.writing;
      const text = path.endsWith(".md") ? await this.adapter.disk.read(path) : "";
      if (text === null || this.seen.get(path) === text) continue;
      const before = this.files.get(path);
      const file = before ?? new TFile(path);
      this.files.set(path, file);
      this.seen.set(path, text);
      file.stat.mtime = before ? Date.now() : 0;
      this.trigger(before ? "modify" : "create", file);
    }
  }
}

interface Head {
  frontmatter: Record<string, string>;
  frontmatterPosition: { end: { line: number } };
}

export class MetadataCache extends Events {
  constructor(private readonly vault: Vault) {
    super();
    for (const name of ["create", "modify"]) vault.on(name, (file: TFile) => void this.parsed(file));
  }

  private readonly heads = new Map<string, Partial<Head>>();

  getFileCache(file: TFile): Partial<Head> {
    return this.heads.get(file.path) ?? {};
  }

  getFirstLinkpathDest(link: string, _from: string): TFile | null {
    const wanted = link.endsWith(".md") ? link : `${link}.md`;
    const files = [...this.vault.files.values()];
    return files.find((file) => file.path === wanted || file.path.endsWith(`/${wanted}`)) ?? null;
  }

  private async parsed(file: TFile): Promise<void> {
    if (file.extension !== "md") return;
    const text = await this.vault.read(file);
    const [whole = "", head = ""] = /^---\n([\s\S]*?)\n---\n/.exec(text) ?? [];
    const pairs = Array.from(head.matchAll(/^([\w-]+): *"?(.*?)"?$/gm), ([, name, value]) => [name, value]);
    const frontmatter = Object.fromEntries(pairs) as Record<string, string>;
    const end = { line: whole.split("\n").length - 2 };
    this.heads.set(file.path, whole ? { frontmatter, frontmatterPosition: { end } } : {});
    this.trigger("changed", file, text, this.getFileCache(file));
  }
}

export class SecretStorage {
  readonly secrets = new Map<string, string>();

  setSecret(id: string, secret: string): void {
    if (!/^[a-z0-9-]+$/.test(id)) throw new Error(`no id: ${id}`);
    this.secrets.set(id, secret);
  }

  getSecret(id: string): string | null {
    return this.secrets.get(id) ?? null;
  }
}

/** The app's editor, over CodeMirror. */
export class Editor {
  constructor(readonly cm: EditorView) {}

  getValue(): string {
    return this.cm.state.doc.toString();
  }

  getCursor(): { line: number; ch: number } {
    return this.offsetToPos(this.cm.state.selection.main.head);
  }

  setCursor(line: number | { line: number; ch: number }, ch = 0): void {
    const at = typeof line === "number" ? { line, ch } : line;
    this.cm.dispatch({ selection: { anchor: this.posToOffset(at) } });
  }

  posToOffset({ line, ch }: { line: number; ch: number }): number {
    return this.cm.state.doc.line(line + 1).from + ch;
  }

  offsetToPos(offset: number): { line: number; ch: number } {
    const line = this.cm.state.doc.lineAt(offset);
    return { line: line.number - 1, ch: offset - line.from };
  }

  getLine(line: number): string {
    return this.cm.state.doc.line(line + 1).text;
  }

  getRange(from: { line: number; ch: number }, to: { line: number; ch: number }): string {
    return this.cm.state.sliceDoc(this.posToOffset(from), this.posToOffset(to));
  }

  replaceRange(text: string, from: { line: number; ch: number }, to = from): void {
    this.cm.dispatch({ changes: { from: this.posToOffset(from), to: this.posToOffset(to), insert: text } });
  }

  replaceSelection(text: string): void {
    this.cm.dispatch(this.cm.state.replaceSelection(text));
  }

  lastLine(): number {
    return this.cm.state.doc.lines - 1;
  }

  focus(): void {
    this.cm.focus();
  }
}

const SAVE_MS = 2000;

export class ItemView extends Component {
  readonly containerEl = document.createElement("div");
  readonly contentEl = document.createElement("div");

  constructor(readonly leaf: WorkspaceLeaf) {
    super();
    this.containerEl.append(this.contentEl);
  }

  get app(): App {
    return this.leaf.app;
  }

  getViewType(): string {
    return "";
  }

  onOpen(): Promise<void> {
    return Promise.resolve();
  }

  onClose(): Promise<void> {
    return Promise.resolve();
  }
}

export interface MarkdownFileInfo {
  file: TFile | null;
  editor: Editor;
}

export const editorInfoField = StateField.define<MarkdownFileInfo>({
  create: () => ({ file: null }) as unknown as MarkdownFileInfo,
  update: (info) => info,
});

/** A note in a pane. What is typed reaches the disk two seconds later; what changes there is taken over when at rest. */
export class MarkdownView extends ItemView implements MarkdownFileInfo {
  file: TFile | null = null;
  readonly editor: Editor;
  mode: "source" | "preview" = "source";
  private saved = "";
  private timer = 0;

  constructor(leaf: WorkspaceLeaf) {
    super(leaf);
    const view = new EditorView({ state: this.state(""), parent: this.contentEl });
    this.editor = new Editor(view);
    this.registerEvent(this.app.vault.on("modify", (file: TFile) => void this.reloaded(file)));
  }

  async onLoadFile(file: TFile): Promise<void> {
    this.file = file;
    this.saved = await this.app.vault.read(file);
    this.editor.cm.setState(this.state(this.saved));
  }

  getMode(): "source" | "preview" {
    return this.mode;
  }

  async save(): Promise<void> {
    window.clearTimeout(this.timer);
    const text = this.editor.getValue();
    if (!this.file || this.saved.replace(/\r\n?/g, "\n") === text) return;
    this.saved = text;
    await this.app.vault.process(this.file, () => text);
  }

  override onunload(): void {
    window.clearTimeout(this.timer);
    this.editor.cm.destroy();
  }

  private state(doc: string): EditorState {
    const info = editorInfoField.init(() => this);
    const saving = EditorView.updateListener.of((update) => {
      if (!update.docChanged || this.mode !== "source") return;
      window.clearTimeout(this.timer);
      this.timer = window.setTimeout(() => void this.save(), SAVE_MS);
    });
    const { extensions } = this.leaf.app.workspace;
    return EditorState.create({ doc, extensions: [info, history(), EditorView.lineWrapping, saving, extensions] });
  }

  private async reloaded(file: TFile): Promise<void> {
    if (file !== this.file) return;
    const text = await this.app.vault.read(file);
    const clean = this.saved.replace(/\r\n?/g, "\n") === this.editor.getValue();
    if (!clean || text === this.saved) return;
    this.saved = text;
    const { cm } = this.editor;
    // The app puts in what differs and leaves the rest, and with it the cursor, where it is.
    const old = cm.state.doc.toString();
    const plain = text.replace(/\r\n?/g, "\n");
    let from = 0;
    while (from < Math.min(old.length, plain.length) && old[from] === plain[from]) from++;
    let end = 0;
    while (end < Math.min(old.length, plain.length) - from && old.at(-1 - end) === plain.at(-1 - end)) end++;
    cm.dispatch({ changes: { from, to: old.length - end, insert: plain.slice(from, plain.length - end) } });
    window.clearTimeout(this.timer);
  }
}

export class WorkspaceLeaf {
  view: Component | null = null;

  constructor(readonly app: App) {}

  async openFile(file: TFile, how: { state?: { mode?: "source" | "preview" } } = {}): Promise<void> {
    if (!(this.view instanceof MarkdownView)) {
      this.view = new MarkdownView(this);
      this.view.load();
    }
    const view = this.view as MarkdownView;
    view.mode = how.state?.mode ?? view.mode;
    if (view.file !== file) await view.onLoadFile(file);
    this.app.workspace.active = this;
  }

  /** Show a registered view here. */
  async setViewState({ type }: { type: string }): Promise<void> {
    const made = this.app.plugins.flatMap((plugin) => plugin.views.get(type) ?? []).map((make) => make(this));
    this.view = made[0] ?? null;
    this.view?.load();
    if (this.view instanceof ItemView) await this.view.onOpen();
  }

  detach(): void {
    if (this.view instanceof ItemView) void this.view.onClose();
    this.view?.unload();
    const { leaves } = this.app.workspace;
    leaves.splice(leaves.indexOf(this), 1);
  }
}

export class Workspace extends Events {
  readonly leaves: WorkspaceLeaf[] = [];
  readonly compartment = new Compartment();
  readonly registered: Extension[] = [];
  /** What was opened by a link, last. */
  opened: string | null = null;
  active: WorkspaceLeaf | null = null;

  constructor(private readonly app: App) {
    super();
  }

  get extensions(): Extension {
    return this.compartment.of(this.registered);
  }

  onLayoutReady(act: Act): void {
    act();
  }

  getLeavesOfType(type: string): WorkspaceLeaf[] {
    if (type === "markdown") return this.leaves.filter((leaf) => leaf.view instanceof MarkdownView);
    return this.leaves.filter((leaf) => leaf.view instanceof ItemView && leaf.view.getViewType() === type);
  }

  getRightLeaf(_split: boolean): WorkspaceLeaf {
    const leaf = new WorkspaceLeaf(this.app);
    this.leaves.push(leaf);
    return leaf;
  }

  revealLeaf(_leaf: WorkspaceLeaf): Promise<void> {
    return Promise.resolve();
  }

  getLeaf(fresh: boolean): WorkspaceLeaf {
    if (!fresh && this.active) return this.active;
    const leaf = new WorkspaceLeaf(this.app);
    this.leaves.push(leaf);
    return leaf;
  }

  getActiveFile(): TFile | null {
    return this.active?.view instanceof MarkdownView ? this.active.view.file : null;
  }

  getActiveViewOfType<View>(type: new (...made: never[]) => View): View | null {
    return this.active?.view instanceof type ? this.active.view : null;
  }

  openLinkText(link: string): Promise<void> {
    this.opened = link;
    return Promise.resolve();
  }

  /** Give every open editor the extensions that are registered now. */
  updateOptions(): void {
    for (const leaf of this.leaves) {
      if (leaf.view instanceof MarkdownView) {
        leaf.view.editor.cm.dispatch({ effects: this.compartment.reconfigure([...this.registered]) });
      }
    }
  }
}

export class App {
  readonly vault: Vault;
  readonly metadataCache: MetadataCache;
  readonly workspace = new Workspace(this);
  readonly secretStorage = new SecretStorage();
  readonly local = new Map<string, string>();
  readonly plugins: Plugin[] = [];

  constructor(disk: Disk, base = "/vaults/Notes") {
    this.vault = new Vault(new FileSystemAdapter(disk, base), base.slice(base.lastIndexOf("/") + 1));
    this.metadataCache = new MetadataCache(this.vault);
  }

  loadLocalStorage(key: string): unknown {
    return JSON.parse(this.local.get(key) ?? "null");
  }

  saveLocalStorage(key: string, data: unknown): void {
    if (data === null) this.local.delete(key);
    else this.local.set(key, JSON.stringify(data));
  }
}

export interface Command {
  id: string;
  name: string;
  hotkeys?: unknown;
  callback?: Act;
  checkCallback?: (checking: boolean) => boolean;
  editorCallback?: (editor: Editor, info: MarkdownFileInfo) => void;
  editorCheckCallback?: (checking: boolean, editor: Editor, info: MarkdownFileInfo) => boolean;
}

type Processor = (source: string, el: HTMLElement, context: object) => void;

export class Plugin extends Component {
  readonly commands = new Map<string, Command>();
  readonly processors = new Map<string, Processor>();
  readonly statusBar: HTMLElement[] = [];
  readonly ribbon: { title: string; act: Act }[] = [];
  readonly views = new Map<string, (leaf: WorkspaceLeaf) => ItemView>();
  readonly suggests: unknown[] = [];
  tab: PluginSettingTab | null = null;

  constructor(
    readonly app: App,
    readonly manifest: object = {},
  ) {
    super();
    app.plugins.push(this);
  }

  addCommand(command: Command): Command {
    this.commands.set(command.id, command);
    this.register(() => this.commands.delete(command.id));
    return command;
  }

  registerMarkdownCodeBlockProcessor(language: string, processor: Processor): void {
    this.processors.set(language, processor);
    this.register(() => this.processors.delete(language));
  }

  registerEditorExtension(extension: Extension): void {
    const { workspace } = this.app;
    workspace.registered.push(extension);
    workspace.updateOptions();
    this.register(() => {
      workspace.registered.splice(workspace.registered.indexOf(extension), 1);
      workspace.updateOptions();
    });
  }

  registerEditorSuggest(suggest: unknown): void {
    this.suggests.push(suggest);
    this.register(() => this.suggests.splice(this.suggests.indexOf(suggest), 1));
  }

  registerView(type: string, make: (leaf: WorkspaceLeaf) => ItemView): void {
    this.views.set(type, make);
    this.register(() => this.views.delete(type));
  }

  addSettingTab(tab: PluginSettingTab): void {
    this.tab = tab;
    this.register(() => (this.tab = null));
  }

  addStatusBarItem(): HTMLElement {
    const item = document.body.appendChild(document.createElement("div"));
    item.className = "status-bar-item";
    this.statusBar.push(item);
    this.register(() => {
      item.remove();
      this.statusBar.splice(this.statusBar.indexOf(item), 1);
    });
    return item;
  }

  addRibbonIcon(_icon: string, title: string, act: Act): HTMLElement {
    this.ribbon.push({ title, act });
    this.register(() => (this.ribbon.length = 0));
    return document.createElement("div");
  }
}

interface Definition {
  name: string;
  desc?: string;
  visible?: () => boolean;
  action?: () => void;
  control?: { type: string; key: string; options?: Record<string, string>; disabled?: () => boolean };
}

/** Draws what is declared, whenever it is told to. */
export class PluginSettingTab {
  readonly containerEl = document.createElement("div");

  constructor(readonly app: App) {}

  getSettingDefinitions(): Definition[] {
    return [];
  }

  getControlValue(_key: string): unknown {
    return undefined;
  }

  setControlValue(_key: string, _value: unknown): void | Promise<void> {}

  update(): void {
    this.containerEl.replaceChildren();
    for (const one of this.getSettingDefinitions()) {
      if (one.visible?.() === false) continue;
      const setting = new Setting(this.containerEl).setName(one.name).setDesc(one.desc ?? "");
      if (one.action) setting.addButton((button) => button.setButtonText(one.name).onClick(() => one.action?.()));
      if (one.control) setting.controlEl.append(this.control(one.control));
    }
  }

  private control({ type, key, options = {}, disabled }: NonNullable<Definition["control"]>): HTMLElement {
    const input = document.createElement(type === "dropdown" ? "select" : "input");
    input.disabled = disabled?.() ?? false;
    if (input instanceof HTMLSelectElement) {
      for (const [value, text] of Object.entries(options)) input.append(new Option(text, value));
      input.value = String(this.getControlValue(key));
      input.addEventListener("change", () => void this.setControlValue(key, input.value));
    } else {
      input.type = "checkbox";
      input.checked = this.getControlValue(key) === true;
      input.addEventListener("change", () => void this.setControlValue(key, input.checked));
    }
    return input;
  }
}

export class Modal {
  readonly modalEl = document.createElement("div");
  readonly titleEl = document.createElement("div");
  readonly contentEl = document.createElement("div");

  constructor(readonly app: App) {
    this.modalEl.className = "modal";
    this.titleEl.className = "modal-title";
    this.contentEl.className = "modal-content";
    this.modalEl.setAttribute("role", "dialog");
    this.modalEl.append(this.titleEl, this.contentEl);
  }

  setTitle(title: string): this {
    this.titleEl.textContent = title;
    return this;
  }

  open(): void {
    document.body.append(this.modalEl);
    this.onOpen();
  }

  close(): void {
    this.modalEl.remove();
    this.onClose();
  }

  onOpen(): void {}
  onClose(): void {}
}

/** The list of things to pick from: what is typed narrows it. */
export class SuggestModal<Thing> extends Modal {
  readonly inputEl = document.createElement("input");
  readonly resultContainerEl = document.createElement("div");
  emptyStateText = "";

  setPlaceholder(text: string): void {
    this.inputEl.placeholder = text;
  }

  override onOpen(): void {
    this.modalEl.prepend(this.inputEl, this.resultContainerEl);
    this.inputEl.addEventListener("input", () => this.list());
    this.list();
  }

  private list(): void {
    this.resultContainerEl.replaceChildren();
    for (const thing of this.getSuggestions(this.inputEl.value)) {
      const item = this.resultContainerEl.appendChild(document.createElement("div"));
      item.className = "suggestion-item";
      this.renderSuggestion(thing, item);
      item.addEventListener("click", () => {
        this.close();
        this.onChooseSuggestion(thing);
      });
    }
  }

  getSuggestions(_query: string): Thing[] {
    return [];
  }

  renderSuggestion(_thing: Thing, _el: HTMLElement): void {}
  onChooseSuggestion(_thing: Thing): void {}
}

/** Suggestions while typing. The app asks after every letter; here a test does. */
export class EditorSuggest<Thing> {
  context: { editor: Editor; file: TFile | null; start: Place; end: Place; query: string } | null = null;
  limit = 100;

  constructor(readonly app: App) {}

  /** What the app would list now. */
  asked(editor: Editor, file: TFile | null): Thing[] {
    const found = this.onTrigger(editor.getCursor(), editor, file);
    this.context = found && { ...found, editor, file };
    return this.context ? this.getSuggestions(this.context) : [];
  }

  onTrigger(_cursor: Place, _editor: Editor, _file: TFile | null): { start: Place; end: Place; query: string } | null {
    return null;
  }

  getSuggestions(_context: object): Thing[] {
    return [];
  }

  renderSuggestion(_thing: Thing, _el: HTMLElement): void {}
  selectSuggestion(_thing: Thing): void {}
}

interface Place {
  line: number;
  ch: number;
}

class Control<Input extends HTMLElement> {
  constructor(readonly inputEl: Input) {}
}

class ButtonComponent extends Control<HTMLButtonElement> {
  get buttonEl(): HTMLButtonElement {
    return this.inputEl;
  }

  setButtonText(text: string): this {
    this.inputEl.textContent = text;
    return this;
  }

  setCta(): this {
    this.inputEl.classList.add("mod-cta");
    return this;
  }

  onClick(act: Act): this {
    this.inputEl.addEventListener("click", act);
    return this;
  }
}

class TextComponent extends Control<HTMLInputElement> {
  setPlaceholder(text: string): this {
    this.inputEl.placeholder = text;
    return this;
  }

  setValue(text: string): this {
    this.inputEl.value = text;
    return this;
  }

  onChange(act: (value: string) => void): this {
    this.inputEl.addEventListener("input", () => act(this.inputEl.value));
    return this;
  }
}

class TextAreaComponent extends Control<HTMLTextAreaElement> {
  setValue(text: string): this {
    this.inputEl.value = text;
    return this;
  }

  onChange(act: (value: string) => void): this {
    this.inputEl.addEventListener("input", () => act(this.inputEl.value));
    return this;
  }
}

class DropdownComponent extends Control<HTMLSelectElement> {
  get selectEl(): HTMLSelectElement {
    return this.inputEl;
  }

  addOption(value: string, text: string): this {
    this.inputEl.append(new Option(text, value));
    return this;
  }

  setValue(value: string): this {
    this.inputEl.value = value;
    return this;
  }

  onChange(act: (value: string) => void): this {
    this.inputEl.addEventListener("change", () => act(this.inputEl.value));
    return this;
  }
}

export class Setting {
  readonly settingEl: HTMLElement;
  readonly nameEl = document.createElement("div");
  readonly descEl = document.createElement("div");
  readonly controlEl = document.createElement("div");

  constructor(container: HTMLElement) {
    this.settingEl = container.appendChild(document.createElement("div"));
    this.settingEl.className = "setting-item";
    const info = this.settingEl.appendChild(document.createElement("div"));
    info.className = "setting-item-info";
    this.nameEl.className = "setting-item-name";
    this.descEl.className = "setting-item-description";
    this.controlEl.className = "setting-item-control";
    info.append(this.nameEl, this.descEl);
    this.settingEl.append(this.controlEl);
  }

  setName(name: string): this {
    this.nameEl.textContent = name;
    return this;
  }

  setClass(name: string): this {
    this.settingEl.classList.add(name);
    return this;
  }

  setDesc(text: string): this {
    this.descEl.textContent = text;
    return this;
  }

  addButton(act: (button: ButtonComponent) => void): this {
    act(new ButtonComponent(this.controlEl.appendChild(document.createElement("button"))));
    return this;
  }

  addText(act: (text: TextComponent) => void): this {
    const input = this.controlEl.appendChild(document.createElement("input"));
    input.type = "text";
    act(new TextComponent(input));
    return this;
  }

  addTextArea(act: (text: TextAreaComponent) => void): this {
    act(new TextAreaComponent(this.controlEl.appendChild(document.createElement("textarea"))));
    return this;
  }

  addDropdown(act: (dropdown: DropdownComponent) => void): this {
    const select = this.controlEl.appendChild(document.createElement("select"));
    select.className = "dropdown";
    act(new DropdownComponent(select));
    return this;
  }
}

export class Notice {
  /** What has been said, oldest first. */
  static readonly said: string[] = [];

  constructor(text: string) {
    Notice.said.push(text);
  }
}

export const Platform = { isMobile: false, isDesktop: true, isDesktopApp: true };

export interface Reply {
  status: number;
  headers: Record<string, string>;
  text: string;
}

/** The way to the network: a test puts its own here. */
export const network: { send: (request: Record<string, unknown>) => Promise<Reply> } = {
  send: () => Promise.reject(new Error("net::ERR_CONNECTION_REFUSED")),
};

export async function requestUrl(request: Record<string, unknown>): Promise<Reply> {
  return await network.send(request);
}

export function setIcon(parent: HTMLElement, name: string): void {
  const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  icon.setAttribute("class", `svg-icon lucide-${name}`);
  parent.replaceChildren(icon);
}

export function debounce<Words extends unknown[]>(act: (...words: Words) => void, wait: number, reset = false) {
  let timer = 0;
  const soon = (...words: Words) => {
    if (timer && !reset) return;
    window.clearTimeout(timer);
    timer = window.setTimeout(() => {
      timer = 0;
      act(...words);
    }, wait);
  };
  return Object.assign(soon, { cancel: () => window.clearTimeout(timer) });
}
