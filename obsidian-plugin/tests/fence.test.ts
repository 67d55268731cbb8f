/** Every block of the corpus has its fence where the daemon sees it. */

import { describe, expect, test } from "vitest";
import { fences } from "../src/fence";
import { cases } from "./corpus";

const LINE_END = /\r\n|[\r\n]/;
/** What ends a fence of another language here is a comment's end: the daemon knows of comments, we do not. */
const BEYOND = ["a comment within a comment's fence ends it"];

describe.each(["fences", "part", "splice", "yaml"])("cases/%s.md", (name) => {
  test.each(cases(name).filter(({ title }) => !BEYOND.includes(title)))("$title", ({ note, expected }) => {
    const found = fences(note.split(LINE_END));
    for (const { start, end } of expected.blocks ?? []) {
      if (start === undefined) continue;
      const ours = found.find((one) => one.start === start);
      expect(ours, `a fence from line ${start}`).toBeDefined();
      if (end !== undefined && ours?.closed) expect(ours?.end).toBe(end);
    }
  });
});
