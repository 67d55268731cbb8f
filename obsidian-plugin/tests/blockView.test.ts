import { afterEach, expect, test, vi } from "vitest";
import { Notice } from "./app/obsidian";
import { block, CODE } from "./daemon";
import { House, sha256 } from "./plugin";

const SOURCE = ["superposition: pentagon", "features: 5", "expect:", "  - represented = 5 in 90% of seeds"].join("\n");
const NOTE = `# Claims\n\n\`\`\`vaultlab\n${SOURCE}\n\`\`\`\n`;
const RESULT = `---
lab_status: done
lab_verdict: supported
lab_ask: "0"
---

## Provenance

\`\`\`yaml
claims:
  - "represented = 5 in 90% of seeds: supported"
\`\`\`
`;
const ours = { start: 3, end: 8, sha256: sha256(SOURCE), fields: { features: 5 } };

let house: House;
afterEach(() => {
  house.close();
  Notice.said.length = 0;
});

const text = (element: HTMLElement, cls: string) => element.querySelector(`.vaultlab-${cls}`)?.textContent ?? "";
const buttons = (element: HTMLElement) => Array.from(element.querySelectorAll("button"), (one) => one.textContent);
const press = (element: HTMLElement, label: string) =>
  Array.from(element.querySelectorAll("button")).find((one) => one.textContent === label)?.click();

async function opened(said = {}): Promise<HTMLElement> {
  house = await House.open({ "Note.md": NOTE, "vaultlab/pentagon.md": RESULT });
  house.daemon.plan = () => ({ blocks: [block({ ...ours, ...said })] });
  return house.render("Note.md", SOURCE, 3);
}

test("what it will run, its state and its claims' verdicts stand in the note", async () => {
  const element = await opened({ state: "stale", why: "sparsity was 0.9, is 0.95" });
  await vi.waitFor(() => expect(text(element, "state")).toBe("Out of date"));
  expect(text(element, "title")).toBe("A pentagon");
  expect(text(element, "fields")).toBe("features 5");
  expect(text(element, "details")).toContain("sparsity was 0.9, is 0.95");
  await vi.waitFor(() => expect(text(element, "claims")).toContain("supported"));
  expect(buttons(element)).toEqual(["Run", "Why", "Open result"]);
  expect(element.querySelector("[role=group]")?.getAttribute("aria-label")).toBe("Experiment: A pentagon");
});

test("running shows how far it is and what is left, and can be cancelled; the state alone is announced", async () => {
  const element = await opened();
  await vi.waitFor(() => expect(text(element, "state")).toBe("Not run yet"));
  const where = { path: "Note.md", id: "pentagon", run: "7" };
  house.daemon.tell({ kind: "queued", ...where, place: 2, why: "behind `dense`" });
  await vi.waitFor(() => expect(text(element, "details")).toBe("2nd in line: behind dense"));
  house.daemon.tell({ kind: "loading", ...where, phase: "loading smollm2-135m" });
  await vi.waitFor(() => expect(text(element, "state")).toBe("Loading the model"));
  house.daemon.tell({ kind: "running", ...where, phase: "training", done: 1200, total: 3000, eta_s: 12 });
  await vi.waitFor(() => expect(text(element, "progress")).toBe("1\u202f200 of 3\u202f000 · 12 s left"));
  expect(element.querySelector("progress")?.value).toBe(1200);
  const announced = vi.fn();
  new MutationObserver(announced).observe(element.querySelector("[role=status]")!, { childList: true, characterData: true });
  house.daemon.tell({ kind: "running", ...where, phase: "training", done: 1300, total: 3000, eta_s: 11 });
  await vi.waitFor(() => expect(text(element, "progress")).toContain("1\u202f300"));
  expect(announced).not.toHaveBeenCalled();
  press(element, "Cancel");
  await vi.waitFor(() => expect(house.daemon.requests("/v1/runs/7")).toHaveLength(1));
  house.daemon.tell({ kind: "cancelled", ...where });
  await vi.waitFor(() => expect(text(element, "unseen")).toBe("A pentagon: Not run yet"));
});

test("Run asks for the very block that is saved, with its hash", async () => {
  const element = await opened();
  await vi.waitFor(() => expect(buttons(element)).toContain("Run"));
  press(element, "Run");
  const asked = { path: "Note.md", id: "pentagon", block_sha256: sha256(SOURCE) };
  await vi.waitFor(() => expect(house.daemon.requests("/v1/runs")).toEqual([asked]));
});

test("what stands in the way of a run is said in the block, with the mend", async () => {
  const element = await opened();
  await vi.waitFor(() => expect(buttons(element)).toContain("Run"));
  const problem = { message: "The model is not here.", hint: "Pull it.", line: null, field: null };
  house.daemon.answer = (_, target) => (target === "/v1/runs" ? [503, problem] : null);
  press(element, "Run");
  await vi.waitFor(() => expect(text(element, "details")).toBe("The model is not here.Pull it."));
  expect(text(element, "state")).toBe("Not run yet");
  expect(text(element, "unseen")).toContain("The model is not here.");
  expect(buttons(element)).toContain("Run");
  house.daemon.tell({ kind: "running", path: "Note.md", id: "pentagon", run: "7", done: 1, total: 2 });
  await vi.waitFor(() => expect(text(element, "state")).toBe("Running"));
  expect(element.textContent).not.toContain("The model is not here.");
});

test("a clock that is wrong is told in the daemon's words, and no one is asked to pair anew", async () => {
  const element = await opened();
  await vi.waitFor(() => expect(buttons(element)).toContain("Run"));
  const problem = { message: "The clocks are 95 s apart.", hint: "Set whichever is wrong.", line: null, field: null };
  house.daemon.answer = () => [401, problem];
  house.daemon.restart();
  await vi.waitFor(() => expect(text(element, "state")).toBe("Clocks differ"), 5000);
  expect(text(element, "hint")).toBe("The clocks are 95 s apart. Set whichever is wrong.");
  expect(buttons(element)).not.toContain("Pair…");
});

test("a card of a canvas is told that blocks run in notes", async () => {
  house = await House.open({ "Board.canvas": JSON.stringify({ nodes: [{ text: NOTE }] }) });
  const element = house.render("Board.canvas", SOURCE);
  await vi.waitFor(() => expect(text(element, "details")).toContain("Blocks run in notes"));
  expect(buttons(element)).toEqual([]);
  expect(house.daemon.requests("/v1/plan")).toEqual([]);
});

test("a note that a canvas or another note shows has its blocks as at home", async () => {
  await opened();
  const shown = house.render("Note.md", SOURCE);
  await vi.waitFor(() => expect(buttons(shown)).toContain("Run"));
  expect(house.daemon.requests("/v1/plan")).toHaveLength(1);
});

test("what is wrong is said with its line, and the line is a way there", async () => {
  const problem = { message: "`featurs` is no field.", hint: "Did you mean `features`?", line: 5, field: "featurs" };
  const element = await opened({ state: "error", problems: [problem] });
  await vi.waitFor(() => expect(text(element, "state")).toBe("Cannot run"));
  expect(text(element, "details")).toBe("Line 5featurs is no field.Did you mean features?");
  element.querySelector<HTMLElement>(".vaultlab-line")?.click();
  await vi.waitFor(() => expect(house.app.workspace.getActiveFile()?.path).toBe("Note.md"));
});

test("a device that is not paired is told, then paired, then asked whether it trusts the vault", async () => {
  house = await House.open({ "Note.md": NOTE }, false);
  house.daemon.trusted = false;
  house.daemon.plan = () => ({ blocks: [block(ours)] });
  const element = house.render("Note.md", SOURCE);
  await vi.waitFor(() => expect(buttons(element)).toEqual(["Pair…"]));
  press(element, "Pair…");
  const dialog = document.querySelector<HTMLElement>("[role=dialog]")!;
  const input = dialog.querySelector("input")!;
  input.value = CODE;
  input.dispatchEvent(new Event("input"));
  press(dialog, "Pair");
  await vi.waitFor(() => expect(text(element, "details")).toContain("Nothing runs before you trust this vault."));
  const question = document.querySelector<HTMLElement>("[role=dialog]")!;
  expect(question.textContent).toContain("It runs here.");
  press(question, "Trust this vault");
  await vi.waitFor(() => expect(house.daemon.requests("/v1/trust")).toEqual([{ trusted: true }]));
  await vi.waitFor(() => expect(buttons(element)).toEqual(["Run"]));
});

test("with no daemon it says how to start one, and the last result stays", async () => {
  const element = await opened();
  await vi.waitFor(() => expect(text(element, "state")).toBe("Not run yet"));
  house.daemon.gone = true;
  house.daemon.restart();
  await vi.waitFor(() => expect(text(element, "state")).toBe("No daemon"));
  expect(text(element, "command")).toBe("vaultlab watch /vaults/Notes");
  expect(text(element, "claims")).toContain("supported");
  house.daemon.gone = false;
  press(element, "Try again");
  await vi.waitFor(() => expect(text(element, "state")).toBe("Not run yet"));
});

test("where the app does not know the section, two blocks alike are still told apart from others", async () => {
  house = await House.open({ "Note.md": NOTE });
  const other = block({ id: "dense", title: "Dense", start: 12, end: 14, sha256: sha256("superposition: dense") });
  house.daemon.plan = () => ({ blocks: [block(ours), other] });
  const embedded = house.render("Note.md", "superposition: dense");
  await vi.waitFor(() => expect(text(embedded, "title")).toBe("Dense"));
});

test("a button that has the focus keeps it", async () => {
  const element = await opened({ state: "fresh" });
  await vi.waitFor(() => expect(buttons(element)).toContain("Run"));
  element.querySelector<HTMLElement>("[data-action=run]")?.focus();
  house.daemon.tell({ kind: "running", path: "Note.md", id: "pentagon", run: "7", done: 1, total: 2 });
  await vi.waitFor(() => expect(buttons(element)).toContain("Cancel"));
  expect(document.activeElement?.textContent).toBe("Cancel");
});

test("fifty blocks of a note are one plan", async () => {
  const sources = Array.from({ length: 50 }, (_, at) => `superposition: b${at}`);
  house = await House.open({ "Note.md": sources.map((one) => `\`\`\`vaultlab\n${one}\n\`\`\`\n`).join("\n") });
  house.daemon.plan = () => ({
    blocks: sources.map((one, at) => block({ id: `b${at}`, title: `B${at}`, sha256: sha256(one), start: 1 + 4 * at })),
  });
  const elements = sources.map((one) => house.render("Note.md", one));
  await vi.waitFor(() => expect(text(elements[49]!, "state")).toBe("Not run yet"));
  expect(house.daemon.requests("/v1/plan")).toHaveLength(1);
});

test("after unload nothing of the plugin is left", async () => {
  house = await House.open({}, "key only");
  house.plugin.unload();
  const heard = house.app.metadataCache.listeners + house.app.vault.listeners + house.app.workspace.listeners + 1; // and the pane's own
  house.close();
  const element = await opened();
  await vi.waitFor(() => expect(text(element, "state")).toBe("Not run yet"));
  const view = await house.edit("Note.md");
  house.plugin.unload();
  const { app, plugin } = house;
  expect(plugin.commands.size + plugin.processors.size + plugin.statusBar.length + plugin.views.size).toBe(0);
  expect(app.workspace.registered).toEqual([]);
  expect(document.querySelectorAll(".status-bar-item")).toHaveLength(0);
  const asked = house.daemon.asked.length;
  view.editor.replaceRange("x", { line: 4, ch: 0 });
  house.daemon.tell({ kind: "stale", path: "Note.md", id: "pentagon" });
  await app.vault.process(house.file("Note.md"), (now) => `${now}\n`);
  await new Promise((resolve) => window.setTimeout(resolve, 1500));
  expect(house.daemon.asked.length).toBe(asked);
  expect(Notice.said).toEqual([]);
  expect(document.querySelectorAll("[class*=vaultlab]")).toHaveLength(0);
  expect(element.innerHTML).toBe(`<pre><code>${SOURCE}</code></pre>`);
  expect(app.metadataCache.listeners + app.vault.listeners + app.workspace.listeners).toBe(heard);
});
