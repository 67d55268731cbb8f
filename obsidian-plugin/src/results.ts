/** Every result of the vault, as its note's properties tell it: with no daemon too, and on a phone. */

import { TFile, type App, type CachedMetadata } from "obsidian";
import type { Verdict } from "./page";

export interface ResultRow {
  path: string;
  id: string;
  title: string;
  experiment: string;
  /** The note that the block is in, as a link names it. */
  note: string;
  failed: boolean;
  verdict: Verdict | null;
  /** Whether its verdicts were accepted as the findings they are. */
  accepted: boolean;
}

const ORDER = ["refuted", "failed", "undecided", "supported", "done"];

/** A row for a result note; null for any other. */
export function row(file: TFile, cache: CachedMetadata | null): ResultRow | null {
  const said: Record<string, unknown> | undefined = cache?.frontmatter;
  if (!said || !("lab_ask" in said)) return null;
  const text = (name: string) => (typeof said[name] === "string" ? said[name] : "");
  return {
    path: file.path,
    id: file.basename,
    title: text("title") || file.basename,
    experiment: text("lab_experiment"),
    note: text("lab_note").replace(/^\[\[|(\|.*)?\]\]$/g, ""),
    failed: said.lab_status === "failed",
    verdict: (said.lab_verdict as Verdict | undefined) ?? null,
    accepted: "lab_accepted" in said,
  };
}

/** How it stands, in one word. */
export function standing({ failed, verdict }: ResultRow): string {
  return failed ? "failed" : (verdict ?? "done");
}

/** The rows that a filter leaves: refuted first, then what failed, then by title. */
export function shown(rows: Iterable<ResultRow>, query: string, only: string): ResultRow[] {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (one: ResultRow) => `${one.title} ${one.id} ${one.experiment} ${one.note} ${standing(one)}`.toLowerCase();
  const left = [...rows].filter((one) => (!only || standing(one) === only) && words.every((word) => text(one).includes(word)));
  const place = (one: ResultRow) => ORDER.indexOf(standing(one)) + (one.accepted ? ORDER.length : 0);
  return left.sort((one, other) => place(one) - place(other) || one.title.localeCompare(other.title));
}

/** All results of the vault, kept as they change; `changed` is told when they have. */
export class Results {
  readonly rows = new Map<string, ResultRow>();

  constructor(
    private readonly app: App,
    private readonly changed: () => void,
  ) {
    for (const file of app.vault.getMarkdownFiles()) this.take(file, app.metadataCache.getFileCache(file));
  }

  /** A note was parsed anew. */
  take(file: TFile, cache: CachedMetadata | null): void {
    const found = row(file, cache);
    const before = this.rows.get(file.path);
    if (found) this.rows.set(file.path, found);
    else if (!this.rows.delete(file.path)) return;
    if (JSON.stringify(before) !== JSON.stringify(found)) this.changed();
  }

  /** A note is gone, or is somewhere else now. */
  drop(path: string): void {
    if (this.rows.delete(path)) this.changed();
  }

  moved(file: unknown, from: string): void {
    this.drop(from);
    if (file instanceof TFile) this.take(file, this.app.metadataCache.getFileCache(file));
  }
}
