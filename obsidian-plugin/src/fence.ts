/** Where a block's fence begins and ends. This is all of Markdown that is known here; what it means, the daemon says. */

/** The lines of a fence, from 1. `end` is that of the last line where nothing closes it. */
export interface Fence {
  start: number;
  end: number;
  closed: boolean;
}

const OPENING = /^((?:[ \t]*(?:>|[-*+]|\d{1,9}[.)]))*[ \t]*)(`{3,}|~{3,})[ \t]*([^\s`]*)/;

/** Whether this line could begin or end a fence: another line can be typed without looking again. */
export function isFenceLike(line: string): boolean {
  return line.includes("```") || line.includes("~~~");
}

/** The fences of our language in these lines. */
export function fences(lines: Iterable<string>): Fence[] {
  const found: Fence[] = [];
  let open: { mark: string; quotes: number; ours: Fence | null } | null = null;
  let number = 0;
  for (const line of lines) {
    number++;
    if (open && quotes(line) < open.quotes) open = null; // its container has ended, and it with it
    if (open) {
      if (open.ours) open.ours.end = number;
      if (!closes(line, open.mark)) continue;
      if (open.ours) open.ours.closed = true;
      open = null;
      continue;
    }
    const [, prefix = "", mark = "", language = ""] = OPENING.exec(line) ?? [];
    if (!mark) continue;
    const ours = language === "vaultlab" ? { start: number, end: number, closed: false } : null;
    if (ours) found.push(ours);
    open = { mark, quotes: quotes(prefix), ours };
  }
  return found;
}

/** The fence around a line. */
export function fenceAt(found: readonly Fence[], line: number): Fence | null {
  return found.find((one) => one.start <= line && line <= one.end) ?? null;
}

function quotes(line: string): number {
  return (/^[ \t>]*/.exec(line)?.[0].match(/>/g) ?? []).length;
}

function closes(line: string, mark: string): boolean {
  const rest = line.replace(/^[ \t>]*/, "").trimEnd();
  return rest.length >= mark.length && rest === mark.charAt(0).repeat(rest.length);
}
