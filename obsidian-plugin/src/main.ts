/** The plugin's life: what is begun here ends with it. */

import { Platform, Plugin, debounce } from "obsidian";
import { BlockView, type Hands } from "./blockView";
import { addCommands, goto, said } from "./commands";
import { Completion, hovering } from "./complete";
import { Device } from "./device";
import { Edits } from "./edits";
import { offerTag } from "./insert";
import { Lab } from "./lab";
import { LAB_VIEW, LabView } from "./labView";
import { marked } from "./marks";
import { Notes } from "./notes";
import { command, Pairing } from "./pairing";
import { Settings } from "./settings";
import { statusWords } from "./status";
import { askTrust } from "./trusting";

const SAVED_MS = 500;

export default class Vaultlab extends Plugin {
  override onload(): void {
    const device = new Device(this.app);
    const notes = new Notes(this.app);
    const lab = new Lab(device, notes, Platform.isMobile);
    const edits = new Edits(lab);
    lab.edit = (edit) => edits.make(edit).catch(() => undefined); // the daemon has gone: it offers it anew
    const hands: Hands = {
      pair: () => new Pairing(this.app, device, lab).open(),
      trust: () => askTrust(this.app, lab),
      partake: (path) => void said(offerTag(this.app, lab, edits, path)),
      goto: (path, line) => void goto(lab, path, line),
      command: () => command(this.app, "watch"),
    };
    this.blocks(lab, hands);
    this.addSettingTab(new Settings(this.app, this, device, lab));
    this.registerView(LAB_VIEW, (leaf) => new LabView(leaf, lab));
    this.addRibbonIcon("flask-conical", "Open the lab", () => void this.lab());
    this.addCommand({ id: "show-queue", name: "Show the queue", callback: () => void this.lab() });
    this.registerEditorExtension(notes.extension);
    if (!Platform.isMobile) this.writing(lab, edits, hands);
    this.register(() => lab.link.stop());
    this.app.workspace.onLayoutReady(() => lab.link.start());
  }

  private blocks(lab: Lab, hands: Hands): void {
    const drawn = new Set<BlockView>();
    this.registerMarkdownCodeBlockProcessor("vaultlab", (source, el, context) => {
      const block = new BlockView(el, source, context, lab, hands, () => drawn.delete(block));
      drawn.add(block);
      context.addChild(block);
    });
    this.register(() => {
      for (const block of drawn) block.unload();
    });
  }

  /** What a phone does not have: it shows results, and tries nothing else. */
  private writing(lab: Lab, edits: Edits, hands: Hands): void {
    this.registerEditorExtension([marked(lab), hovering(lab)]);
    this.registerEditorSuggest(new Completion(this.app, lab));
    addCommands(this, lab, edits, hands.pair);
    this.status(lab);
    const saved = debounce((path: string) => void lab.look(path), SAVED_MS, true);
    this.registerEvent(
      this.app.vault.on("modify", ({ path }) => {
        if (lab.watched(path)) saved(path);
      }),
    );
    this.register(() => saved.cancel());
  }

  private status(lab: Lab): void {
    const item = this.addStatusBarItem();
    const draw = () => {
      const { words, detail } = statusWords(lab.link.state, lab.underway);
      item.setText(`Lab: ${words}`);
      item.setAttrs({ "aria-label": detail || words, "data-tooltip-position": "top" });
    };
    this.register(lab.watch(null, draw));
    draw();
  }

  /** Show the lab beside the notes: the one that is there, or a new one. */
  private async lab(): Promise<void> {
    const { workspace } = this.app;
    const leaf = workspace.getLeavesOfType(LAB_VIEW)[0] ?? workspace.getRightLeaf(false);
    await leaf?.setViewState({ type: LAB_VIEW, active: true });
    if (leaf) await workspace.revealLeaf(leaf);
  }
}
