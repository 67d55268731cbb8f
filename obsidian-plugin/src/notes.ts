/** The vault's notes as they stand on the screen: typed and perhaps not yet saved, else as they are on the disk. */

import type { Extension } from "@codemirror/state";
import { ViewPlugin, type EditorView } from "@codemirror/view";
import { MarkdownView, TFile, editorInfoField, type App } from "obsidian";

export class Notes {
  private readonly open = new Set<EditorView>();

  constructor(readonly app: App) {}

  /** Knows every editor that is open, whatever window, canvas or embed it is in. */
  get extension(): Extension {
    const open = this.open;
    return ViewPlugin.define((view) => {
      open.add(view);
      return { destroy: () => open.delete(view) };
    });
  }

  file(path: string): TFile | null {
    const file = this.app.vault.getAbstractFileByPath(path);
    return file instanceof TFile ? file : null;
  }

  /** The editors in which this note is being written. One behind the reading view may be out of date: not among them. */
  editors(path: string): EditorView[] {
    return [...this.open].filter((view) => {
      const info = view.state.field(editorInfoField, false);
      const reading = info instanceof MarkdownView && info.getMode() !== "source";
      return info?.file?.path === path && !reading;
    });
  }

  /** What its author sees, as it stands on the disk where it is saved; null where there is no such note. */
  async text(path: string): Promise<string | null> {
    const file = this.file(path);
    const saved = file && (await this.saved(file).catch(() => null)); // it may be gone by now
    const typed = this.editors(path)[0]?.state.doc.toString();
    return typed === undefined || (saved !== null && plain(saved) === typed) ? saved : typed;
  }

  /** A note's very text, byte order mark and line ends included, as the daemon reads it. */
  async saved(file: TFile): Promise<string> {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(await this.app.vault.readBinary(file));
  }

  /** Have what is typed written to the disk now. */
  async save(path: string): Promise<void> {
    for (const leaf of this.app.workspace.getLeavesOfType("markdown")) {
      const { view } = leaf;
      if (view instanceof MarkdownView && view.file?.path === path && view.getMode() === "source") await view.save();
    }
  }
}

/** The path of the note that an editor shows. */
export function pathOf(view: EditorView): string | null {
  return view.state.field(editorInfoField, false)?.file?.path ?? null;
}

export const MARK = "\ufeff";

/** A text as an editor holds it: no byte order mark, and every line end a line feed. */
export function plain(text: string): string {
  return text.replace(MARK, "").replace(/\r\n?/g, "\n");
}
