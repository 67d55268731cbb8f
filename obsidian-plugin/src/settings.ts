/** The settings, and the two questions that are asked once: pairing and trust. All of it belongs to this device alone. */

import { Modal, Notice, PluginSettingTab, Setting, type App, type Plugin, type SettingDefinitionItem } from "obsidian";
import { pair, Stranger } from "./client";
import { said } from "./commands";
import type { Device } from "./device";
import type { Lab } from "./lab";
import type { Hello } from "./protocol";
import { statusWords } from "./status";

export class Settings extends PluginSettingTab {
  constructor(
    app: App,
    plugin: Plugin,
    private readonly device: Device,
    private readonly lab: Lab,
  ) {
    super(app, plugin);
  }

  override getSettingDefinitions(): SettingDefinitionItem[] {
    return [
      { name: "Daemon", desc: this.standing(), searchable: false },
      {
        name: "Trust this vault",
        desc: this.hello?.trust ?? "Once connected: whether its notes may run on this machine.",
        control: { type: "toggle", key: "trusted", defaultValue: false, disabled: () => !this.hello },
      },
      {
        name: this.device.keys ? "Pair anew" : "Pair this device",
        desc: "Type the code that the daemon's command line shows; it is good for two minutes.",
        action: () => new Pairing(this.app, this.device, this.lab).open(),
      },
      {
        name: "Forget the pairing",
        desc: "This device's key is deleted; what has been written stays.",
        visible: () => this.device.keys !== null,
        action: () => {
          this.device.forget();
          this.lab.link.retry();
          this.update();
        },
      },
      {
        name: "Connect again",
        desc: "Look for the daemon now.",
        action: () => this.lab.link.retry(),
      },
    ];
  }

  override getControlValue(key: string): unknown {
    return key === "trusted" && (this.hello?.trusted ?? false);
  }

  override async setControlValue(key: string, value: unknown): Promise<void> {
    if (key === "trusted") await said(this.lab.trust(value === true));
  }

  private get hello(): Hello | null {
    const { state } = this.lab.link;
    return state.is === "connected" ? state.hello : null;
  }

  private standing(): string {
    const { state } = this.lab.link;
    const { words, detail } = statusWords(state, this.lab.underway);
    const where = this.device.machine ? ` Machine: ${this.device.machine}.` : "";
    return `${words}. ${detail}${where}`;
  }
}

/** Says what trusting this vault means, and asks. */
export class Trusting extends Modal {
  constructor(
    app: App,
    private readonly lab: Lab,
  ) {
    super(app);
  }

  override onOpen(): void {
    this.setTitle("Trust this vault?");
    const { state } = this.lab.link;
    if (state.is !== "connected") return this.close();
    this.contentEl.createEl("p", { text: state.hello.trust });
    new Setting(this.contentEl)
      .addButton((button) => button.setButtonText("Not now").onClick(() => this.close()))
      .addButton((button) =>
        button
          .setButtonText("Trust this vault")
          .setCta()
          .onClick(() => {
            this.close();
            void said(this.lab.trust(true));
          }),
      );
  }
}

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
    this.contentEl.createEl("p", { text: "In a terminal on this machine, type the first line; then type here what it shows." });
    this.contentEl.createEl("pre", { cls: "vaultlab-command" }).createEl("code", { text: COMMAND });
    const answer = this.contentEl.createEl("p", { cls: "vaultlab-said", attr: { role: "alert" } });
    new Setting(this.contentEl).setName("Code").addText((text) => {
      text.setPlaceholder(FORM).onChange((value) => (this.code = value));
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
      if (!state.hello.trusted) new Trusting(this.app, this.lab).open();
    });
    this.lab.link.retry();
  }
}

const COMMAND = "vaultlab pair";
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
