/** The question that is asked once: whether what this vault's notes ask for may run on this machine. */

import type { App } from "obsidian";
import { said } from "./commands";
import type { Lab } from "./lab";
import { Question } from "./question";

/** Say what trusting this vault means, and ask. */
export function askTrust(app: App, lab: Lab): void {
  const { state } = lab.link;
  if (state.is !== "connected") return;
  const asked = { title: "Trust this vault?", text: [state.hello.trust], yes: "Trust this vault" };
  new Question(app, asked, () => void said(lab.trust(true))).open();
}
