/** A sentence of the daemon's: what stands between backticks is code. */

export function prose(container: HTMLElement, text: string): void {
  for (const [at, part] of text.split("`").entries()) {
    if (at % 2 && part) container.createEl("code", { text: part });
    else if (part) container.appendText(part);
  }
}
