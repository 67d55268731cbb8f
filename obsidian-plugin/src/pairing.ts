/** How this device and its daemon come to know each other: a code that is shown there and typed here. */

import { FileSystemAdapter, Modal, Notice, Setting, type App } from "obsidian";
import { pair, Stranger } from "./client";
import type { Device } from "./device";
import type { Lab } from "./lab";
import { askTrust } from "./trusting";

/** Asks for the code that `vaultlab pair` shows, and finds the daemon that knows it. */
export class Pairing extends Modal {
  private code = "";

  constructor(
    app: App,
    private readonly device: Device,
    private readonly lab: Lab,
  ) {
    super(app);
  }

  override onOpen(): void {
    this.setTitle("Pair this device");
    this.contentEl.createEl("p", { text: "Run this in a terminal on this machine, then type here the code that it shows." });
    this.contentEl.createEl("pre", { cls: "vaultlab-command" }).createEl("code", { text: command(this.app, "pair") });
    const answer = this.contentEl.createEl("p", { cls: "vaultlab-said", attr: { role: "alert" } });
    new Setting(this.contentEl).setName("Code").setClass("vaultlab-wide").addText((text) => {
      text.setPlaceholder(FORM).onChange((value) => (this.code = value));
      text.inputEl.addClass("vaultlab-code");
      text.inputEl.setAttr("aria-label", "Code");
      text.inputEl.addEventListener("keydown", (event) => {
        if (event.key === "Enter") void this.pair(answer);
      });
    });
    new Setting(this.contentEl).addButton((button) =>
      button.setButtonText("Pair").setCta().onClick(() => void this.pair(answer)),
    );
  }

  private async pair(answer: HTMLElement): Promise<void> {
    answer.setText("");
    const became = await paired(this.device, this.code, this.app.vault.getName());
    if (became !== "paired") {
      answer.setText(ANSWERS[became]);
      return;
    }
    new Notice("This device is paired.");
    this.close();
    const asked = this.lab.watch(null, () => {
      const { state } = this.lab.link;
      if (state.is !== "connected") return;
      asked();
      if (!state.hello.trusted) askTrust(this.app, this.lab);
    });
    this.lab.link.retry();
  }
}

const FORM = "ABCD-EFGH-…";
const ANSWERS = {
  "no code": "This is no code: it has 26 letters and digits.",
  "no daemon": "No daemon answers on this machine. Start it, then try again.",
  "not known": "The daemon does not know this code. A code is good once and for two minutes: ask for another.",
};

/** Try the code on every daemon that says in this vault that it is there: only the one that knows it can answer. */
export async function paired(device: Device, code: string, vault: string): Promise<"paired" | keyof typeof ANSWERS> {
  let answer: keyof typeof ANSWERS = "no daemon";
  for (const { port, machine } of await device.presences()) {
    try {
      const keys = await pair(port, code, `Obsidian, ${vault}`.slice(0, 64));
      if (!keys) return "no code";
      device.keep(keys, machine);
      return "paired";
    } catch (error) {
      if (error instanceof Stranger) answer = "not known";
    }
  }
  return answer;
}

/** What to type in a terminal, about this vault. */
export function command(app: App, verb: "watch" | "pair"): string {
  const { adapter } = app.vault;
  const path = adapter instanceof FileSystemAdapter ? adapter.getBasePath() : app.vault.getName();
  return `vaultlab ${verb} ${/^[\w./-]+$/.test(path) ? path : `"${path}"`}`;
}
