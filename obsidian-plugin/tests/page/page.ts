/** The app in a page: a note in Live Preview, the status bar, dialogs; the plugin as it is built. */

import { StateField, type EditorState, type Extension, type Range } from "@codemirror/state";
import { Decoration, drawSelection, EditorView, WidgetType, type DecorationSet } from "@codemirror/view";
import "../app/dom";
import { App, type ItemView, MarkdownView, network, setIcon, type Disk, type MarkdownRenderChild, type Plugin, type Reply } from "../app/obsidian";
import { built, type Main } from "../app/built";
import { drawIcons } from "./icons";

declare global {
  interface Window {
    vaultSend: (request: Record<string, unknown>) => Promise<Reply>;
    vaultList: Disk["list"];
    vaultRead: Disk["read"];
    vaultWrite: Disk["write"];
    lab: { app: App; plugin: Plugin; editor: () => EditorView; command: (id: string) => void; panel: () => void; render: (sources: string[]) => void };
    vaultlabMain: Main;
    openVault: (base: string, path: string) => Promise<void>;
  }
}

network.send = (request) => window.vaultSend(request);

window.openVault = async (base, path) => {
  const disk = { list: window.vaultList, read: window.vaultRead, write: window.vaultWrite };
  const app = new App(disk, base);
  await app.vault.look();
  window.setInterval(() => void app.vault.look(), 300);
  const plugin = new (built(window.vaultlabMain))(app, {});
  app.workspace.registered.push(livePreview(app, plugin), drawSelection());
  plugin.load();
  const leaf = app.workspace.getLeaf(true);
  const file = app.vault.getFileByPath(path);
  if (!file) throw new Error(`no note ${path}`);
  await leaf.openFile(file, { state: { mode: "source" } });
  const workspace = document.body.appendChild(document.createElement("div"));
  workspace.className = "workspace";
  const { contentEl, editor } = leaf.view as MarkdownView;
  workspace.append(contentEl);
  for (const item of plugin.statusBar) item.classList.add("status-bar");
  new MutationObserver(() => drawIcons(document)).observe(document.body, { childList: true, subtree: true });
  const command = (id: string) => {
    const { callback, editorCallback } = plugin.commands.get(id) ?? {};
    callback?.();
    editorCallback?.(editor, leaf.view as MarkdownView);
  };
  /** Show the side panel, or close it. */
  const panel = () => {
    const shown = document.querySelector(".side");
    shown?.remove();
    if (shown) return;
    command("show-queue");
    const side = document.body.appendChild(document.createElement("div"));
    side.className = "side";
    window.setTimeout(() => side.append((app.workspace.leaves.at(-1)?.view as ItemView).contentEl), 100);
  };
  /** Blocks as Reading view draws them: all at once, and none of those before. */
  const drawn: MarkdownRenderChild[] = [];
  const render = (sources: string[]) => {
    for (const child of drawn.splice(0)) {
      child.unload();
      child.containerEl.remove();
    }
    for (const source of sources) {
      const addChild = (child: MarkdownRenderChild) => {
        drawn.push(child);
        child.load();
      };
      plugin.processors.get("vaultlab")?.(source, workspace.appendChild(document.createElement("div")), { sourcePath: path, getSectionInfo: () => null, addChild });
    }
  };
  window.lab = { app, plugin, editor: () => editor.cm, command, panel, render };
};

/** A block or an embed where the cursor is not: drawn instead of its text. */
function livePreview(app: App, plugin: Plugin): Extension {
  const built = (editor: EditorState): DecorationSet => {
    const found: Range<Decoration>[] = [];
    const lines = editor.doc.toString().split("\n");
    const within = (from: number, to: number) => editor.selection.main.head >= from && editor.selection.main.head <= to;
    for (let at = 0; at < lines.length; at++) {
      const line = lines[at] ?? "";
      const { from, to } = editor.doc.line(at + 1);
      if (line.startsWith("# ")) found.push(Decoration.line({ class: "heading" }).range(from));
      const embed = /^!\[\[(.*)#\^result\]\]$/.exec(line)?.[1];
      if (embed && !within(from, to)) {
        found.push(Decoration.replace({ widget: new Card(app, `${embed}.md`), block: true }).range(from, to));
      }
      if (line !== "```vaultlab") continue;
      const end = lines.indexOf("```", at + 1);
      if (end < 0) continue;
      const close = editor.doc.line(end + 1);
      const source = lines.slice(at + 1, end).join("\n");
      if (within(from, close.to)) {
        for (let one = at; one <= end; one++) found.push(Decoration.line({ class: "fence" }).range(editor.doc.line(one + 1).from));
      } else {
        const widget = new Drawn(plugin, source, at);
        found.push(Decoration.replace({ widget, block: true }).range(from, close.to));
      }
      at = end;
    }
    return Decoration.set(found, true);
  };
  return StateField.define<DecorationSet>({
    create: built,
    update: (before, transaction) => (transaction.docChanged || transaction.selection ? built(transaction.state) : before),
    provide: (field) => EditorView.decorations.from(field),
  });
}

class Drawn extends WidgetType {
  private child: MarkdownRenderChild | null = null;

  constructor(
    private readonly plugin: Plugin,
    private readonly source: string,
    private readonly line: number,
  ) {
    super();
  }

  override eq(other: Drawn): boolean {
    return other.source === this.source;
  }

  toDOM(): HTMLElement {
    const outer = document.createElement("div");
    outer.className = "cm-embed-block cm-lang-vaultlab";
    const inner = outer.appendChild(document.createElement("div"));
    const button = outer.appendChild(document.createElement("div"));
    button.className = "edit-block-button";
    setIcon(button, "code-2");
    const addChild = (child: MarkdownRenderChild) => {
      this.child = child;
      child.load();
    };
    const getSectionInfo = () => ({ text: "", lineStart: this.line, lineEnd: this.line });
    this.plugin.processors.get("vaultlab")?.(this.source, inner, { sourcePath: "Note.md", getSectionInfo, addChild });
    return outer;
  }

  override destroy(): void {
    this.child?.unload();
  }

  override ignoreEvent(): boolean {
    return true;
  }
}

/** The card of a result note, as the app embeds it. */
class Card extends WidgetType {
  constructor(
    private readonly app: App,
    private readonly path: string,
  ) {
    super();
  }

  override eq(other: Card): boolean {
    return other.path === this.path;
  }

  toDOM(): HTMLElement {
    const card = document.createElement("div");
    card.className = "callout";
    const draw = () => void this.draw(card);
    draw();
    this.app.vault.on("modify", draw);
    this.app.vault.on("create", draw);
    return card;
  }

  private async draw(card: HTMLElement): Promise<void> {
    const text = (await this.app.vault.adapter.disk.read(this.path)) ?? "";
    const lines = (/\n\n> \[!\w+\] ([\s\S]*?)\n\n\^result/.exec(text)?.[1] ?? "").split("\n");
    const [title = "", ...rest] = lines;
    const figures = new Map<string, string>();
    for (const [, file = ""] of text.matchAll(/\]\((figures\/.*?)\)/g)) {
      figures.set(file, (await this.app.vault.adapter.disk.read(`vaultlab/${file}`)) ?? "");
    }
    card.replaceChildren();
    card.createDiv({ cls: "callout-title", text: title });
    for (const line of rest) {
      const [, alt, file] = /!\[(.*)\]\((.*)\)/.exec(line) ?? [];
      if (!file) card.createDiv({ text: line.replace(/^> /, "") });
      else {
        const src = `data:image/svg+xml,${encodeURIComponent(figures.get(file) ?? "")}`;
        card.createEl("img", { attr: { alt: alt ?? "", src } });
      }
    }
  }
}
