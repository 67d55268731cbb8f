import { afterEach, expect, test, vi } from "vitest";
import { House } from "./plugin";

const result = (id: string, verdict: string, more = "") =>
  `---\ntitle: "Title of ${id}"\nlab_ask: "0"\nlab_experiment: superposition\nlab_status: ${verdict === "failed" ? "failed" : "done"}\n` +
  `${verdict === "failed" ? "" : `lab_verdict: ${verdict}\n`}lab_note: "[[Note]]"\n${more}---\n`;

let house: House;
afterEach(() => house.close());

async function opened(): Promise<HTMLElement> {
  house = await House.open({
    "Note.md": "Claims\n\n```vaultlab\nsuperposition: two\n```\n",
    "Other.md": "No result.\n",
    "vaultlab/one.md": result("one", "supported"),
    "vaultlab/two.md": result("two", "refuted"),
    "vaultlab/three.md": result("three", "failed"),
    "vaultlab/four.md": result("four", "refuted", "lab_accepted: yes\n"),
  });
  house.command("show-queue");
  return await vi.waitFor(() => {
    const [leaf] = house.app.workspace.getLeavesOfType("vaultlab-lab");
    const { contentEl } = leaf?.view as unknown as { contentEl: HTMLElement };
    document.body.append(contentEl);
    return contentEl;
  });
}

const rows = (view: HTMLElement) =>
  Array.from(view.querySelectorAll(".vaultlab-results li"), (item) => item.textContent?.replace(/\s+/g, " ") ?? "");

test("all results, the refuted first, what was accepted last", async () => {
  const view = await opened();
  await vi.waitFor(() =>
    expect(rows(view)).toEqual([
      "Title of tworefuted · Note",
      "Title of threefailed · Note",
      "Title of onesupported · Note",
      "Title of fourrefuted · accepted · Note",
    ]),
  );
});

test("they are filtered by words and by verdict, and change as their notes do", async () => {
  const view = await opened();
  await vi.waitFor(() => expect(rows(view)).toHaveLength(4));
  const search = view.querySelector("input");
  const select = view.querySelector("select");
  if (!search || !select) throw new Error("no filters");
  search.value = "TWO note";
  search.dispatchEvent(new Event("input"));
  expect(rows(view)).toEqual(["Title of tworefuted · Note"]);
  search.value = "";
  search.dispatchEvent(new Event("input"));
  select.value = "supported";
  select.dispatchEvent(new Event("change"));
  expect(rows(view)).toEqual(["Title of onesupported · Note"]);
  house.disk.files["vaultlab/two.md"] = result("two", "supported");
  await house.app.vault.look();
  await vi.waitFor(() => expect(rows(view)).toHaveLength(2));
});

test("a click goes to the block in its note", async () => {
  const view = await opened();
  await vi.waitFor(() => expect(rows(view)).toHaveLength(4));
  view.querySelector<HTMLElement>(".vaultlab-results a")?.click();
  await vi.waitFor(() => expect(house.app.workspace.getActiveFile()?.path).toBe("Note.md"));
  const { editor } = house.app.workspace.active?.view as unknown as { editor: { getCursor(): { line: number } } };
  await vi.waitFor(() => expect(editor.getCursor().line).toBe(2));
});

test("what runs and waits, with how far it is; a cross cancels it", async () => {
  const view = await opened();
  const where = { path: "Note.md", id: "two" };
  house.daemon.tell({ kind: "queued", path: "Note.md", id: "later", run: "8", place: 1, why: "behind `two`" });
  house.daemon.tell({ kind: "running", ...where, run: "7", phase: "training", done: 3, total: 4, eta_s: 5 });
  const queue = () => Array.from(view.querySelectorAll(".vaultlab-queue li"), (item) => item.textContent);
  await vi.waitFor(() => expect(queue()).toEqual(["twotraining · 5 s left", "laterwaiting · behind two"]));
  expect(view.querySelector("progress")?.value).toBe(3);
  expect(view.querySelector(".vaultlab-lab-state")?.textContent).toBe("two 75 % · 5 s left · 1 waiting");
  const cancel = view.querySelector<HTMLElement>(".vaultlab-queue button")!;
  expect(cancel.getAttribute("aria-label")).toBe("Cancel two");
  cancel.focus();
  house.daemon.tell({ kind: "running", ...where, run: "7", phase: "training", done: 4, total: 4, eta_s: 1 });
  await vi.waitFor(() => expect(queue()[0]).toContain("1 s left"));
  expect(document.activeElement?.getAttribute("aria-label")).toBe("Cancel two");
  view.querySelector<HTMLElement>(".vaultlab-queue button")?.click();
  await vi.waitFor(() => expect(house.daemon.asked.some(({ method, target }) => method === "DELETE" && target === "/v1/runs/7")).toBe(true));
});

test("without results it says how to get one", async () => {
  house = await House.open({ "Note.md": "" });
  house.command("show-queue");
  const view = await vi.waitFor(() => {
    const [leaf] = house.app.workspace.getLeavesOfType("vaultlab-lab");
    return (leaf?.view as unknown as { contentEl: HTMLElement }).contentEl;
  });
  expect(rows(view)).toEqual(["No results yet. Insert an experiment in a note and run it."]);
});
