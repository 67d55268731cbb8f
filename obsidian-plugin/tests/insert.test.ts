import { afterEach, expect, test, vi } from "vitest";
import { composed, exampleOf, slug } from "../src/insert";
import { fieldsOf, written } from "../src/schema";
import { Notice } from "./app/obsidian";
import { KNOWN, SUPERPOSITION } from "./catalogue";
import { House, sha256 } from "./plugin";

let house: House | null = null;
afterEach(() => {
  house?.close();
  house = null;
  Notice.said.length = 0;
});

test("a field is told in words: what it takes, and what it is by itself", () => {
  const told = fieldsOf(SUPERPOSITION).map(({ name, takes, default: usual }) => `${name}: ${takes}; ${written(usual)}`);
  expect(told).toEqual([
    "model: a model of this machine; smollm2-135m",
    "features: a whole number from 2 to 512; 5",
    "sparsity: a number from 0 to 0.999; 0.95",
    "activation: relu, linear; relu",
    "head: a head, such as L17H10 or none; none",
    "bos: true or false or none; none",
    "text: a text; hello",
    'words: a list, or where it stands: "[[Note#Heading]]"; ["good"]',
    "matrix: a list; [[1,0]]",
  ]);
});

test("a block says what is not as it is by itself, and quotes what YAML would read as something else", () => {
  const values = { features: "6", text: "a: b", activation: "linear", matrix: "[[1,0],[0,1]]", head: "L1H2" };
  const block = composed("superposition", "six", SUPERPOSITION, { title: "Yes", values, claims: "loss < 0.1\n\n every x = 1 " });
  expect(block).toBe(
    [
      "```vaultlab",
      "superposition: six",
      'title: "Yes"',
      "features: 6",
      "activation: linear",
      "head: L1H2",
      'text: "a: b"',
      "matrix: [[1,0],[0,1]]",
      "expect:",
      "  - loss < 0.1",
      "  - every x = 1",
      "```",
      "",
    ].join("\n"),
  );
  const fenced = composed("superposition", "x", SUPERPOSITION, { title: "a ``` b", values: {}, claims: "" });
  expect(fenced.startsWith("````vaultlab\n")).toBe(true);
});

test("a list is written out, or named by its heading in quotes", () => {
  const block = (words: string) => composed("superposition", "x", SUPERPOSITION, { title: "", values: { words }, claims: "" });
  expect(block("[good, fine]")).toContain("\nwords: [good, fine]\n");
  expect(block("[[Adjectives#Good]]")).toContain('\nwords: "[[Adjectives#Good]]"\n');
});

test("a title makes an id", () => {
  expect(slug("Five features fit: a Pentagon!")).toBe("five-features-fit-a-pentagon");
  expect(slug("Über – alles")).toBe("uber-alles");
  expect(slug("⟂")).toBe("experiment");
  expect(slug("x".repeat(90))).toHaveLength(60);
});

test("an example fills the form", () => {
  const [first] = SUPERPOSITION.examples;
  if (!first) throw new Error("no example");
  expect(exampleOf(first)).toEqual({
    title: "Five fit in two: a pentagon",
    values: { features: "5", sparsity: "0.9", matrix: "[[1,0],[0,1]]", text: "a: b" },
    claims: "represented = 5",
  });
});

const pick = (words: string) => {
  const items = Array.from(document.querySelectorAll<HTMLElement>(".suggestion-item"));
  items.find((one) => one.textContent?.includes(words))?.click();
};
const press = (label: string) =>
  Array.from(document.querySelectorAll<HTMLButtonElement>(".modal button")).find((one) => one.textContent === label)?.click();

async function opened(note: string, takesPart: boolean): Promise<House> {
  house = await House.open({ "Note.md": note, "vaultlab/five-fit-in-two-a-pentagon.md": "---\nlab_ask: x\n---\n" });
  const { daemon, plugin } = house;
  daemon.experiments = KNOWN.experiments;
  daemon.plan = (_, text) => ({
    takes_part: takesPart,
    partake: takesPart ? null : { base_sha256: sha256(text), offset: 0, insert: "---\ntags:\n  - experiment\n---\n" },
  });
  plugin.unload();
  plugin.load();
  const view = await house.edit("Note.md");
  view.editor.setCursor(0, 0);
  await vi.waitFor(() => expect(daemon.requests("/v1/experiments").length).toBeGreaterThan(1));
  await vi.waitFor(() => {
    document.querySelectorAll(".modal").forEach((one) => one.remove());
    house?.command("insert-experiment");
    expect(document.querySelectorAll(".suggestion-item")).toHaveLength(2);
  });
  return house;
}

test("picked, filled in by an example and inserted: a block with an id of its own behind the line of the cursor", async () => {
  const { app } = await opened("A claim.\n", true);
  pick("superposition");
  const select = document.querySelector<HTMLSelectElement>(".modal select");
  if (!select) throw new Error("no examples");
  select.value = "0";
  select.dispatchEvent(new Event("change"));
  expect(document.querySelector(".modal details p")?.textContent).toBe("The formula.");
  press("Insert");
  const file = app.vault.getFileByPath("Note.md");
  const view = app.workspace.active?.view as unknown as { editor: { getValue(): string } };
  expect(view.editor.getValue()).toBe(
    "A claim.\n\n```vaultlab\nsuperposition: five-fit-in-two-a-pentagon-2\ntitle: \"Five fit in two: a pentagon\"\nfeatures: 5\nsparsity: 0.9\n" +
      'text: "a: b"\nmatrix: [[1,0],[0,1]]\nexpect:\n  - represented = 5\n```\n\n',
  );
  expect(file?.path).toBe("Note.md");
});

test("a note that takes no part is asked about, and gets the one line that the daemon has computed", async () => {
  const { app, disk } = await opened("", false);
  pick("attention");
  press("Insert");
  await vi.waitFor(() => expect(document.querySelector(".modal-title")?.textContent).toBe("Let this note take part?"));
  press("Add the tag");
  const view = app.workspace.active?.view as unknown as { editor: { getValue(): string } };
  await vi.waitFor(() => expect(view.editor.getValue()).toMatch(/^---\ntags:\n {2}- experiment\n---\n```vaultlab\nattention: attention\n```\n/));
  await vi.waitFor(() => expect(disk.files["Note.md"]).toBe(view.editor.getValue()));
});

test("typed on meanwhile, the line is not put in, and that is said", async () => {
  const { app } = await opened("", false);
  pick("attention");
  press("Insert");
  await vi.waitFor(() => expect(document.querySelector(".modal-title")?.textContent).toBe("Let this note take part?"));
  const { editor } = app.workspace.active?.view as unknown as { editor: { getValue(): string; replaceRange(text: string, at: object): void } };
  editor.replaceRange("more", { line: 0, ch: 0 });
  const before = editor.getValue();
  press("Add the tag");
  await vi.waitFor(() => expect(Notice.said.join()).toContain("changed meanwhile"));
  expect(editor.getValue()).toBe(before);
});

test.each([
  ["its properties", "---\ntags: [experiment]\n---\nWords.\n", 1, "---\ntags: [experiment]\n---\n\n```vaultlab\nattention: attention\n```\n\nWords.\n"],
  ["another block", "```vaultlab\nsuperposition: a\n```\nWords.\n", 1, "```vaultlab\nsuperposition: a\n```\n\n```vaultlab\nattention: attention\n```\n\nWords.\n"],
])("with the cursor in %s, it goes behind them", async (_, note, line, meant) => {
  const { app } = await opened(note, true);
  const view = app.workspace.active?.view as unknown as { editor: { getValue(): string; setCursor(line: number, ch: number): void } };
  view.editor.setCursor(line, 2);
  pick("attention");
  press("Insert");
  expect(view.editor.getValue()).toBe(meant);
});

test("whatever can be filled in has a name that is read out", async () => {
  await opened("", true);
  pick("superposition");
  const controls = Array.from(document.querySelectorAll(".modal input, .modal select, .modal textarea"));
  const names = controls.map((one) => one.getAttribute("aria-label"));
  expect(names).toEqual(["Begin with", "Title", ...fieldsOf(SUPERPOSITION).map(({ name }) => name), "Claims"]);
  expect(controls[3]?.getAttribute("aria-description")).toBe("How many features the data has. Takes a whole number from 2 to 512.");
});
