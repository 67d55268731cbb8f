/** Reads the cases of the notes' corpus, as the daemon's own tests do: see the README beside them. */

import { readFileSync } from "node:fs";
import { join } from "node:path";

const CASES = "../tests/notes/cases";
const VISIBLE: [string, string][] = [["␉", "\t"], ["␍\n", "\r\n"], ["␡", "\ufeff"], ["␇", "\u0007"], ["␤", "\u2028"], ["␄\n", ""]];

export interface Case {
  title: string;
  note: string;
  expected: { blocks?: { start?: number; end?: number; id?: string }[] };
  /** The note with the embeds of all its blocks. */
  after: string | null;
}

export function cases(name: string): Case[] {
  const found: Case[] = [];
  const lines = readFileSync(join(CASES, `${name}.md`), "utf8").split("\n");
  for (let at = 0; at < lines.length; at++) {
    const [, title] = /^## (.*)$/.exec(lines[at] ?? "") ?? [];
    if (title === undefined) continue;
    at += 2;
    const parts: string[] = [];
    for (let part = ""; parts.length < 2 || lines[at]; part = "") {
      for (; lines[at] !== "."; at++) part += `${lines[at]}\n`;
      at++;
      parts.push(part);
    }
    const [note = "", expected = "{}", after] = parts;
    found.push({ title, note: plain(note), expected: JSON.parse(expected) as Case["expected"], after: after ? plain(after) : null });
  }
  return found;
}

function plain(text: string): string {
  return VISIBLE.reduce((said, [mark, meant]) => said.replaceAll(mark, meant), text);
}
