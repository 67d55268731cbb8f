/** One question with one yes: what is asked for is said before it is done. */

import { Modal, Setting, type App } from "obsidian";

export class Question extends Modal {
  constructor(
    app: App,
    private readonly asked: { title: string; text: readonly string[]; yes: string },
    private readonly done: () => void,
  ) {
    super(app);
  }

  override onOpen(): void {
    const { title, text, yes } = this.asked;
    this.setTitle(title);
    for (const one of text) this.contentEl.createEl("p", { text: one });
    new Setting(this.contentEl)
      .addButton((button) => button.setButtonText("Not now").onClick(() => this.close()))
      .addButton((button) =>
        button
          .setButtonText(yes)
          .setCta()
          .onClick(() => {
            this.close();
            this.done();
          }),
      );
  }
}
