/** A figure to look into, in place of the still one while it is open: drawn in a frame that can reach nothing. */

import { Component, type App } from "obsidian";
import { drawable, type Data, type Handed } from "./figure/data";

/** The frame's whole page, put in when the plugin is built. */
declare const FRAME: string;

const COLOURS: Record<string, string> = {
  text: "--text-normal",
  muted: "--text-muted",
  accent: "--interactive-accent",
  line: "--background-modifier-border",
  ground: "--background-primary-alt",
  font: "--font-interface",
};

const HIGHEST_PX = 1200;

export class FigureView extends Component {
  private readonly frame: HTMLIFrameElement;
  private window: Window | null = null;

  constructor(
    container: HTMLElement,
    private readonly app: App,
    private readonly data: Data,
    title: string,
  ) {
    super();
    // No origin of its own to share: it has the data that it is handed, and no way out.
    const attr = { sandbox: "allow-scripts", srcdoc: FRAME, title: `Interactive figure: ${title}`, loading: "eager" };
    this.frame = container.createEl("iframe", { cls: "vaultlab-figure", attr });
  }

  override onload(): void {
    // It loads anew when its note is moved into a window of its own.
    this.registerDomEvent(this.frame, "load", () => {
      this.listen(this.frame.ownerDocument.defaultView);
      this.hand();
    });
    this.registerEvent(this.app.workspace.on("css-change", () => this.hand()));
  }

  private listen(window: Window | null): void {
    this.window?.removeEventListener("message", this.measured);
    this.window = window;
    window?.addEventListener("message", this.measured);
  }

  private readonly measured = ({ source, data }: MessageEvent<{ height?: unknown } | null>) => {
    if (source !== this.frame.contentWindow) return;
    const height = data?.height;
    if (typeof height === "number" && height > 0) this.frame.setAttr("height", Math.min(height, HIGHEST_PX));
  };

  /** Hand over the data with the colours as they are now. */
  hand(): void {
    const style = getComputedStyle(this.frame);
    const colours = Object.entries(COLOURS).map(([name, variable]) => [name, style.getPropertyValue(variable)]);
    const scheme = this.frame.ownerDocument.body.classList.contains("theme-dark") ? "dark" : "light";
    const handed: Handed = { data: this.data, scheme, colours: Object.fromEntries(colours) as Record<string, string> };
    // Its origin is none, so no other can be named; what it is handed is in the note anyway.
    this.frame.contentWindow?.postMessage(handed, "*");
  }

  override onunload(): void {
    this.listen(null);
    this.frame.remove();
  }
}

/** The data in an artifact, if it is something that can be drawn. */
export function dataOf(content: string): Data | null {
  const text = new TextDecoder().decode(Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0)));
  const data: unknown = JSON.parse(text);
  return drawable(data) ? data : null;
}
