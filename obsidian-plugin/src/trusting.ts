/** The question that is asked once: whether what this vault's notes ask for may run on this machine. */

import { Modal, Setting, type App } from "obsidian";
import { said } from "./commands";
import type { Lab } from "./lab";

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
