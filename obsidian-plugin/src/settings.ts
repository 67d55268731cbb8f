/** The settings. All of them belong to this device alone: nothing is kept in the vault. */

import { PluginSettingTab, type App, type Plugin, type SettingDefinitionItem } from "obsidian";
import { said } from "./commands";
import type { Device } from "./device";
import type { Lab } from "./lab";
import { Pairing } from "./pairing";
import type { Hello } from "./protocol";
import { statusWords } from "./status";

const LATER = "Known once the daemon is connected.";
const PACES = { itself: "By themselves, when new or changed", hand: "Only when asked to" };

export class Settings extends PluginSettingTab {
  constructor(
    app: App,
    plugin: Plugin,
    private readonly device: Device,
    private readonly lab: Lab,
  ) {
    super(app, plugin);
    let { state } = lab.link;
    const changed = () => {
      if (state === lab.link.state) return;
      ({ state } = lab.link);
      if (this.containerEl.isConnected) this.update();
    };
    plugin.register(lab.watch(null, changed));
  }

  override getSettingDefinitions(): SettingDefinitionItem[] {
    const { device, hello, lab } = this;
    const tried = () => lab.link.state.is !== "viewer";
    return [
      { name: "Daemon", desc: this.standing(), searchable: false },
      {
        name: "Connect again",
        desc: "Look for the daemon of this machine now.",
        visible: () => tried() && device.keys !== null,
        action: () => lab.link.retry(),
      },
      {
        name: "When blocks run",
        desc: hello ? "A note can say otherwise for itself, in its property vaultlab-run." : LATER,
        visible: tried,
        control: { type: "dropdown", key: "pace", options: PACES, disabled: () => !this.hello },
      },
      {
        name: "Trust this vault",
        desc: hello?.trust || LATER,
        visible: tried,
        control: { type: "toggle", key: "trusted", disabled: () => !this.hello },
      },
      {
        name: device.keys ? "Pair anew" : "Pair this device",
        desc: "Type the code that the command line shows; it is good once and for two minutes.",
        visible: tried,
        action: () => new Pairing(this.app, device, lab).open(),
      },
      {
        name: "Forget the pairing",
        desc: "This device's key is deleted; what has been written stays.",
        visible: () => device.keys !== null,
        action: () => {
          device.forget();
          lab.link.retry();
          this.update();
        },
      },
    ];
  }

  override getControlValue(key: string): unknown {
    if (key === "pace") return this.hello?.by_hand ? "hand" : "itself";
    return key === "trusted" && this.hello?.trusted === true;
  }

  override async setControlValue(key: string, value: unknown): Promise<void> {
    if (key === "pace") await said(this.lab.pace(value === "hand"));
    if (key === "trusted") await said(this.lab.trust(value === true));
    this.update();
  }

  private get hello(): Hello | null {
    const { state } = this.lab.link;
    return state.is === "connected" ? state.hello : null;
  }

  private standing(): string {
    const { state, daemon } = this.lab.link;
    const { words, detail } = statusWords(state, []);
    const address = daemon ? `Address: 127.0.0.1:${daemon.port}.` : "";
    const paired = this.device.machine && !daemon ? `Paired with the daemon of ${this.device.machine}.` : "";
    return [`${words}.`, detail, address, paired].filter(Boolean).join(" ");
  }
}
