/** What the reviewers of the community directory look for in the file that is handed out. */

import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { bundle } from "../build.mjs";

const MAIN = "dist/main.js";
const hash = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex");

test.each(["innerHTML", "outerHTML", "insertAdjacentHTML", "fetch(", "eval(", "new Function", "child_process", "require(\"fs\")", "XMLHttpRequest", "WebSocket", "console.log", "/work/", "/home/"])(
  "main.js has no %s",
  (word) => expect(readFileSync(MAIN, "utf8")).not.toContain(word),
);

test("main.js is under 100 kB, and asks for nothing but what the app gives", () => {
  expect(statSync(MAIN).size).toBeLessThan(100_000);
  const asked = new Set(Array.from(readFileSync(MAIN, "utf8").matchAll(/require\("([^"]+)"\)/g), ([, name]) => name));
  expect([...asked].sort()).toEqual(["@codemirror/commands", "@codemirror/state", "@codemirror/view", "obsidian"]);
});

test("the same sources give the same bytes, wherever they are put", async () => {
  const folder = await mkdtemp(join(tmpdir(), "vaultlab-build-"));
  try {
    await bundle(folder);
    for (const name of ["main.js", "manifest.json", "styles.css"]) expect(hash(join(folder, name))).toBe(hash(join("dist", name)));
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("the styles are the app's own colours, sizes and fonts", () => {
  const styles = readFileSync("dist/styles.css", "utf8").replace(/\/\*[\s\S]*?\*\//g, "");
  expect(styles).not.toMatch(/#[0-9a-f]{3,8}\b|rgba?\(|hsla?\(|!important/i);
  expect(styles.match(/^[^@{}]*(?=\{)/gm)?.filter((one) => one.trim() && !/vaultlab|from|to/.test(one))).toEqual([]);
});
