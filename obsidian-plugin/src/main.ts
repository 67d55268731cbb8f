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
import { Trusting } from "./trusting";

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
      trust: () => new Trusting(this.app, lab).open(),
      partake: (path) => void said(offerTag(this.app, lab, edits, path)),
      goto: (path, line) => void goto(lab, path, line),
      command: () => command(this.app, "watch"),
    };
    this.registerMarkdownCodeBlockProcessor("vaultlab", (source, el, context) => {
      context.addChild(new BlockView(el, source, context, lab, hands));
    });
    this.registerEditorExtension([notes.extension, marked(lab)]);
    this.addSettingTab(new Settings(this.app, this, device, lab));
    this.registerEditorExtension(hovering(lab));
    this.registerEditorSuggest(new Completion(this.app, lab));
    this.registerView(LAB_VIEW, (leaf) => new LabView(leaf, lab));
    this.addRibbonIcon("flask-conical", "Open the lab", () => void this.lab());
    addCommands(this, lab, { pair: hands.pair, queue: () => void this.lab(), edits });
    this.status(lab);
    const saved = debounce((path: string) => void lab.look(path), SAVED_MS, true);
    this.registerEvent(
      this.app.vault.on("modify", ({ path }) => {
        if (lab.watched(path)) saved(path);
      }),
    );
    this.register(() => saved.cancel());
    this.register(() => lab.link.stop());
    this.app.workspace.onLayoutReady(() => lab.link.start());
  }

  private status(lab: Lab): void {
    if (Platform.isMobile) return;
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
