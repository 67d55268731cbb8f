/** What the community directory asks of a manifest and eslint does not look at. */

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

const read = (name: string) => JSON.parse(readFileSync(name, "utf8")) as Record<string, unknown>;
const manifest = read("manifest.json");

test("the description is a sentence of the directory's kind", () => {
  const description = manifest.description as string;
  expect(description).toMatch(/^[A-Z].*\.$/);
  expect(description.length).toBeGreaterThanOrEqual(10);
  expect(description.length).toBeLessThanOrEqual(250);
  expect(description).not.toMatch(/obsidian|plugin/i);
});

test("id, name and folder are ours and nobody's", () => {
  expect(manifest).toMatchObject({ id: "vaultlab", minAppVersion: "1.13.0", isDesktopOnly: false });
  expect(`${manifest.id as string}${manifest.name as string}`).not.toMatch(/obsidian|plugin/i);
});

test("every version says what it needs, and the package has the same", () => {
  expect(read("versions.json")[manifest.version as string]).toBe(manifest.minAppVersion);
  expect(read("package.json").version).toBe(manifest.version);
});

test("the README beside the manifest names what the directory wants named", () => {
  const said = readFileSync("README.md", "utf8");
  for (const word of ["loopback (`127.0.0.1`)", "Files outside the vault", "~/.local/state/vaultlab", "starts none", "no account"]) {
    expect(said).toContain(word);
  }
  expect(said).not.toMatch(/https?:/);
  expect(readFileSync("LICENSE", "utf8")).toBe(readFileSync("../LICENSE", "utf8"));
});
