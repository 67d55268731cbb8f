/** The plugin in the stub of the app, and what tests look at. */

import { createHash } from "node:crypto";
import type { App as RealApp } from "obsidian";
import { vi } from "vitest";
import Vaultlab from "../src/main";
import { App, MarkdownRenderChild, MarkdownView, memory, Plugin, WorkspaceLeaf, type TFile } from "./app/obsidian";
import { Daemon, MACHINE } from "./daemon";

export const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

/** The plugin, loaded and paired, over a vault of these notes. */
export class House {
  readonly daemon = new Daemon();
  readonly disk;
  readonly app: App;
  readonly plugin: Plugin;
  private readonly rendered: MarkdownRenderChild[] = [];

  private constructor(files: Record<string, string>) {
    this.disk = memory({ ...this.daemon.presence, ...files });
    this.app = new App(this.disk);
    this.plugin = new Vaultlab(this.app as unknown as RealApp, {} as never) as unknown as Plugin;
  }

  /** `key only`: paired, and not waited for. */
  static async open(files: Record<string, string>, paired: boolean | "key only" = true): Promise<House> {
    const house = new House(files);
    const { app, daemon } = house;
    await app.vault.look();
    if (paired) {
      app.secretStorage.setSecret(`vaultlab-${daemon.device}`, daemon.key.toString("hex"));
      app.saveLocalStorage("vaultlab-paired", { device: daemon.device, machine: MACHINE });
    }
    house.plugin.load();
    if (paired === true) await vi.waitFor(() => daemonHeard(daemon));
    return house;
  }

  file(path: string): TFile {
    const file = this.app.vault.getFileByPath(path);
    if (!file) throw new Error(`no note ${path}`);
    return file;
  }

  /** Open a note in a pane of its own. */
  async edit(path: string, mode: "source" | "preview" = "source"): Promise<MarkdownView> {
    const leaf: WorkspaceLeaf = this.app.workspace.getLeaf(true);
    await leaf.openFile(this.file(path), { state: { mode } });
    return leaf.view as MarkdownView;
  }

  /** A block as the app renders it; `line` is that of its fence, null where the app cannot say. */
  render(path: string, source: string, line: number | null = null): HTMLElement {
    const element = document.body.appendChild(document.createElement("div"));
    const context = {
      sourcePath: path,
      getSectionInfo: () => (line === null ? null : { text: "", lineStart: line - 1, lineEnd: line }),
      addChild: (child: MarkdownRenderChild) => {
        this.rendered.push(child);
        child.load();
      },
    };
    this.plugin.processors.get("vaultlab")?.(source, element, context);
    return element;
  }

  command(id: string): boolean {
    const command = this.plugin.commands.get(id);
    const view = this.app.workspace.active?.view;
    if (command?.callback) command.callback();
    else if (command?.editorCallback && view instanceof MarkdownView) command.editorCallback(view.editor, view);
    else if (command?.checkCallback) return command.checkCallback(true) && command.checkCallback(false);
    else if (command?.editorCheckCallback && view instanceof MarkdownView) {
      const { editorCheckCallback } = command;
      return editorCheckCallback(true, view.editor, view) && editorCheckCallback(false, view.editor, view);
    } else return false;
    return true;
  }

  close(): void {
    for (const child of this.rendered) child.unload();
    this.plugin.unload();
    for (const leaf of [...this.app.workspace.leaves]) leaf.detach();
    this.daemon.restart();
    document.body.replaceChildren();
  }
}

function daemonHeard(daemon: Daemon): void {
  if (!daemon.asked.some((one) => one.target.startsWith("/v1/events"))) throw new Error("not connected yet");
}
