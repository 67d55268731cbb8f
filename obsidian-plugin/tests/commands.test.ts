import { afterEach, expect, test, vi } from "vitest";
import { Notice, Platform } from "./app/obsidian";
import { block } from "./daemon";
import { House, sha256 } from "./plugin";

let house: House;
afterEach(() => {
  house.close();
  Notice.said.length = 0;
  Platform.isMobile = false;
});

const note = (...ids: string[]) => ids.map((id) => `\`\`\`vaultlab\nsuperposition: ${id}\n\`\`\`\n`).join("\n");
const runs = () => house.daemon.requests("/v1/runs").map((one) => (one as { id: string }).id);

async function opened(files: Record<string, string>): Promise<void> {
  house = await House.open(files);
  house.daemon.plan = (_, text) => ({
    blocks: Array.from(text.matchAll(/: ([\w-]+)/g), ([, id = ""], at) => {
      const state = id.replace(/-.*/, "") as "stale";
      return block({ id, title: id, state, why: `its sweep has ${id.length} points`, start: 1 + 4 * at, end: 3 + 4 * at, sha256: sha256(id) });
    }),
  });
}

test("everything that is out of date runs, of every note; what one note says against it stops no other", async () => {
  await opened({ "A.md": note("missing", "fresh"), "B.md": note("stale", "failed", "reworded"), "C.md": note("outdated", "reread"), "D.md": "None.\n" });
  const refused = { message: "The model is not here.", hint: "", line: null, field: null };
  house.daemon.answer = (_, target, body) => (target === "/v1/runs" && (body as { id: string }).id === "stale" ? [503, refused] : null);
  house.command("run-stale");
  await vi.waitFor(() => expect(runs().sort()).toEqual(["failed", "missing", "outdated", "reread", "stale"]), 5000);
  await vi.waitFor(() => expect(Notice.said).toEqual(["The model is not here."]));
});

test("a sweep that is too large to run by itself runs if that is said, and the rest at once", async () => {
  await opened({ "A.md": note("large", "missing"), "B.md": note("large-too") });
  house.command("run-stale");
  const question = await vi.waitFor(() => document.querySelector<HTMLElement>("[role=dialog]") ?? Promise.reject(new Error("no question")));
  expect(question.textContent).toContain("large: its sweep has 5 points.");
  expect(question.textContent).toContain("large-too: its sweep has 9 points.");
  await vi.waitFor(() => expect(runs()).toEqual(["missing"]));
  Array.from(question.querySelectorAll("button")).find((one) => one.textContent === "Run them")?.click();
  await vi.waitFor(() => expect(runs()).toEqual(["missing", "large", "large-too"]));
});

test("where nothing is out of date, that is said", async () => {
  await opened({ "A.md": note("fresh", "reworded") });
  house.command("run-stale");
  await vi.waitFor(() => expect(Notice.said).toEqual(["Nothing is out of date."]));
  expect(runs()).toEqual([]);
});

test("none has a hotkey, and each is as the palette wants it", async () => {
  await opened({});
  const commands = [...house.plugin.commands.values()];
  expect(commands.map(({ id }) => id).sort()).toEqual(
    ["cancel-all", "cancel-block", "insert-experiment", "open-result", "pair", "reconnect", "run-block", "run-note", "run-stale", "show-queue"],
  );
  for (const { id, name, hotkeys } of commands) {
    expect(hotkeys).toBeUndefined();
    expect(`${id} ${name}`.toLowerCase()).not.toMatch(/vaultlab|command/);
  }
});

test("on a phone there is the lab, and nothing that would want a daemon", async () => {
  Platform.isMobile = true;
  house = await House.open({ "A.md": note("missing") }, "key only");
  expect([...house.plugin.commands.keys()]).toEqual(["show-queue"]);
  expect(house.plugin.suggests).toEqual([]);
  const { cm } = (await house.edit("A.md")).editor;
  cm.dispatch({ changes: { from: 14, insert: "x" }, userEvent: "input.type" });
  await new Promise((resolve) => window.setTimeout(resolve, 600));
  expect(house.daemon.asked).toEqual([]);
});
