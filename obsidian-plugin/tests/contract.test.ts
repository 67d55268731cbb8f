/** The plugin as it is built against the daemon as it is: one vault, one daemon after another. */

import { redo, undo } from "@codemirror/commands";
import { readFileSync } from "node:fs";
import { compileFunction } from "node:vm";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { built, type Main } from "./app/built";
import { App, MarkdownView, network, type MarkdownRenderChild, type Plugin } from "./app/obsidian";
import { Real, send } from "./real";

const SOURCE = "superposition: tiny\nfeatures: 3\nhidden: 2\nsteps: 40\nseeds: 1\nrun: manual\nexpect:\n  - loss < 1";
const LONG = "superposition: long\nsteps: 100000\nseeds: 16\nrun: manual";
const note = (source: string) => `---\ntags: [experiment]\n---\n# Words\n\n\`\`\`vaultlab\n${source}\n\`\`\`\n\nmore words\n`;
const PATIENCE = { timeout: 60_000, interval: 50 };

const MAIN = compileFunction(readFileSync("dist/main.js", "utf8"), ["module", "exports", "require"]) as Main;
const Vaultlab = built(MAIN);

let real: Real;
let app: App;
let plugin: Plugin;
let watching: number;
const children: MarkdownRenderChild[] = [];

beforeAll(async () => {
  real = await Real.vault({ "Note.md": note(SOURCE), "Long.md": note(LONG) });
  network.send = send;
});
afterAll(() => real.remove());

beforeEach(async () => {
  app ??= new App(real.disk, real.vault);
  await app.vault.look();
  watching = window.setInterval(() => void app.vault.look(), 200);
  plugin = new Vaultlab(app, {});
  plugin.load();
});

afterEach(async () => {
  for (const child of children.splice(0)) child.unload();
  plugin.unload();
  for (const leaf of [...app.workspace.leaves]) {
    if (leaf.view instanceof MarkdownView) await leaf.view.save();
    leaf.detach();
  }
  window.clearInterval(watching);
  document.body.replaceChildren();
  await real.stop();
});

const find = (element: Element, cls: string) => element.querySelector(`.vaultlab-${cls}`)?.textContent ?? "";
const status = () => plugin.statusBar[0]?.textContent ?? "";

function render(path: string, source: string): HTMLElement {
  const element = document.body.appendChild(document.createElement("div"));
  const addChild = (child: MarkdownRenderChild) => {
    children.push(child);
    child.load();
  };
  plugin.processors.get("vaultlab")?.(source, element, { sourcePath: path, getSectionInfo: () => null, addChild });
  return element;
}

async function press(element: Element, label: string): Promise<void> {
  const button = () => Array.from(element.querySelectorAll("button")).find((one) => one.textContent === label);
  await vi.waitFor(() => expect(button()).toBeDefined(), PATIENCE);
  button()?.click();
}

async function shows(element: Element, words: string): Promise<void> {
  await vi.waitFor(() => expect(find(element, "state")).toBe(words), PATIENCE);
}

async function typeCode(code: string): Promise<HTMLElement> {
  document.querySelector("[role=dialog]")?.remove();
  plugin.commands.get("pair")?.callback?.();
  const dialog = document.querySelector<HTMLElement>("[role=dialog]")!;
  const input = dialog.querySelector("input")!;
  input.value = code;
  input.dispatchEvent(new Event("input"));
  await press(dialog, "Pair");
  return dialog;
}

test("pairing: a wrong code is told so, the right one makes both sides know each other", async () => {
  const element = render("Note.md", SOURCE);
  await shows(element, "Not paired");
  await real.watch("", "--trust");
  const code = real.command("pair");
  const wrong = await typeCode("MFRG-GZDF-MZTW-Q2LK-NNWG-23TP-OA");
  await vi.waitFor(() => expect(find(wrong, "said")).toContain("does not know this code"), PATIENCE);
  await typeCode(code);
  await vi.waitFor(() => expect(status()).toMatch(/^Lab: (Idle|tiny|\d waiting)/), PATIENCE);
  expect(app.secretStorage.secrets.size).toBe(1);
  expect(JSON.stringify([...app.local])).not.toContain([...app.secretStorage.secrets.values()][0]);
});

test("a block runs while its note is open: state, verdict, and the embed as one undo step", async () => {
  const leaf = app.workspace.getLeaf(true);
  await leaf.openFile(app.vault.getFileByPath("Note.md")!, { state: { mode: "source" } });
  const { editor } = leaf.view as MarkdownView;
  const element = render("Note.md", SOURCE);
  await real.watch("", "--trust");
  await press(element, "Run");
  await shows(element, "Up to date");
  await vi.waitFor(() => expect(find(element, "claims")).toBe("loss < 1supported"), PATIENCE);
  const embedded = note(SOURCE).replace("```\n\nmore", "```\n\n![[vaultlab/tiny#^result]]\n\nmore");
  await vi.waitFor(() => expect(editor.getValue()).toBe(embedded), PATIENCE);
  await vi.waitFor(async () => expect(await real.read("Note.md")).toBe(embedded), PATIENCE);
  undo(editor.cm);
  expect(editor.getValue()).toBe(note(SOURCE));
  redo(editor.cm);
});

test("what is wrong is marked in the editor while it is typed", async () => {
  const leaf = app.workspace.getLeaf(true);
  await leaf.openFile(app.vault.getFileByPath("Note.md")!, { state: { mode: "source" } });
  const { cm } = (leaf.view as MarkdownView).editor;
  await real.watch("", "--trust");
  await vi.waitFor(() => expect(status()).toMatch(/^Lab: Idle/), PATIENCE);
  const at = cm.state.doc.toString().indexOf("es: 3");
  cm.dispatch({ changes: { from: at, to: at + 1 } });
  await vi.waitFor(() => expect(cm.dom.querySelector(".vaultlab-mend")?.textContent).toContain("features"), PATIENCE);
  expect(cm.dom.querySelector(".vaultlab-wrong")?.textContent).toBe("featurs: 3");
  cm.dispatch({ changes: { from: at, insert: "e" } });
  await vi.waitFor(() => expect(cm.dom.querySelector(".vaultlab-mend")).toBeNull(), PATIENCE);
});

test("a run says how far it is, and is cancelled", async () => {
  const element = render("Long.md", LONG);
  await real.watch("", "--trust");
  await press(element, "Run");
  await shows(element, "Running");
  await vi.waitFor(() => expect(find(element, "progress")).toMatch(/of 100\u202f000/), PATIENCE);
  await press(element, "Cancel");
  await shows(element, "Not run yet");
});

test("a daemon that begins again is found on its new port, with the same key", async () => {
  const element = render("Note.md", SOURCE);
  await real.watch("", "--trust");
  await shows(element, "Up to date");
  const port = () => real.disk.list(".vaultlab").then(async ([path]) => JSON.parse((await real.read(path!))) as { port: number });
  const before = (await port()).port;
  await real.stop();
  await shows(element, "No daemon");
  await real.watch("", "--trust");
  await press(element, "Try again");
  await shows(element, "Up to date");
  expect((await port()).port).not.toBe(before);
});

test("an untrusted vault runs nothing until it is trusted here", async () => {
  const element = render("Long.md", LONG);
  await real.watch("import vaultlab.trust as t; t.distrust(__import__('pathlib').Path(__import__('sys').argv[2]))");
  await press(element, "Trust this vault…");
  const dialog = document.querySelector<HTMLElement>("[role=dialog]")!;
  expect(dialog.textContent).toContain("notes hold no code");
  await press(dialog, "Trust this vault");
  await vi.waitFor(() => expect(element.textContent).not.toContain("Nothing runs before"), PATIENCE);
  expect(status()).toBe("Lab: Idle");
});

test("a clock that is wrong is named", async () => {
  await real.watch("", "--trust");
  const element = render("Note.md", SOURCE);
  await shows(element, "Up to date");
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() - 600_000 });
  try {
    plugin.unload();
    plugin = new Vaultlab(app, {});
    plugin.load();
    const again = render("Note.md", SOURCE);
    await shows(again, "Clocks differ");
    expect(find(again, "hint")).toContain("10 min apart");
  } finally {
    vi.useRealTimers();
  }
});

test.each([
  [2, "Update this plugin"],
  [0, "Update vaultlab on this machine"],
])("a daemon of protocol %i: which side to update", async (protocol, words) => {
  await real.watch(`import vaultlab.protocol as p; p.PROTOCOL = ${protocol}`, "--trust");
  const element = render("Note.md", SOURCE);
  await shows(element, "Versions differ");
  expect(find(element, "hint")).toContain(words);
});

test("a key that the daemon does not know is no key: pair anew", async () => {
  await real.watch("", "--trust");
  const [id] = [...app.secretStorage.secrets.keys()];
  app.secretStorage.setSecret(id!, "00".repeat(32));
  const element = render("Note.md", SOURCE);
  plugin.commands.get("reconnect")?.callback?.();
  await shows(element, "Not recognised");
});
