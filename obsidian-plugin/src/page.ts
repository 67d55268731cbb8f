/** A result note as it stands in the vault: what can be shown with no daemon at all, and on a phone. */

import type { App } from "obsidian";
import type { Last } from "./protocol";

export type Verdict = "supported" | "refuted" | "undecided";

export interface Page {
  path: string;
  failed: boolean;
  verdict: Verdict | null;
  /** The claims it judged: sentence → verdict. */
  claims: ReadonlyMap<string, Verdict>;
}

const CLAIM = /^ {2}- "(.*): (supported|refuted|undecided)"$/gm;

/** The result note of a block, wherever the vault keeps them. */
export async function page(app: App, id: string, from: string): Promise<Page | null> {
  const file = app.metadataCache.getFirstLinkpathDest(`${id}.md`, from);
  const said = file && app.metadataCache.getFileCache(file)?.frontmatter;
  if (!file || !said || !("lab_ask" in said)) return null;
  const claims = claimsOf(await app.vault.cachedRead(file));
  const verdict = said.lab_verdict as Verdict | undefined;
  return { path: file.path, failed: said.lab_status === "failed", verdict: verdict ?? null, claims };
}

/** The same, as the daemon says it. */
export function told({ note, status, verdict, claims }: Last): Page {
  return { path: note, failed: status === "failed", verdict, claims: new Map(Object.entries(claims)) };
}

/** The claims in the text of a result note, where its provenance lists them. */
export function claimsOf(text: string): Map<string, Verdict> {
  const [, provenance = ""] = text.split("\n## Provenance\n");
  const claims = provenance.slice(provenance.indexOf("\nclaims:\n"));
  return new Map(
    Array.from(claims.matchAll(CLAIM), ([, sentence, verdict]) => [
      JSON.parse(`"${sentence}"`) as string,
      verdict as Verdict,
    ]),
  );
}
