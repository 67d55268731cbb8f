/** What is wrong in a block, marked on its line while it is being typed, with the mend. */

import { RangeSetBuilder, StateEffect, StateField, type EditorState, type Extension, type Text } from "@codemirror/state";
import { Decoration, EditorView, ViewPlugin, WidgetType, type DecorationSet, type ViewUpdate } from "@codemirror/view";
import { fenceAt, fences, isFenceLike, type Fence } from "./fence";
import type { Known, Lab } from "./lab";
import { pathOf, plain } from "./notes";
import { prose } from "./prose";
import type { Planned, Problem } from "./protocol";

const QUIET_MS = 300;

const found = StateEffect.define<readonly Problem[]>();

/** Where the blocks' fences are: looked for again only where a line changes that could begin or end one. */
export const blocks = StateField.define<readonly Fence[]>({
  create: (state) => fences(state.doc.iterLines()),
  update(before, transaction) {
    if (!transaction.docChanged) return before;
    const { startState, state, changes } = transaction;
    const moved = startState.doc.lines !== state.doc.lines;
    let other = false;
    changes.iterChangedRanges((fromA, toA, fromB, toB) => {
      other ||= fenceLike(startState.doc, fromA, toA) || fenceLike(state.doc, fromB, toB);
      other ||= moved && [fromA, toA].some((at) => fenceAt(before, startState.doc.lineAt(at).number) !== null);
    });
    if (other) return fences(state.doc.iterLines());
    const now = (line: number) => state.doc.lineAt(changes.mapPos(startState.doc.line(line).from)).number;
    return moved ? before.map(({ start, end, closed }) => ({ start: now(start), end: now(end), closed })) : before;
  },
});

const marks = StateField.define<DecorationSet>({
  create: () => Decoration.none,
  update(before, transaction) {
    const told = transaction.effects.filter((effect) => effect.is(found)).at(-1);
    return told ? decorated(transaction.state, told.value) : before.map(transaction.changes);
  },
  provide: (field) => EditorView.decorations.from(field),
});

/** The editor extension: has a note planned while one of its blocks is typed in, and shows what is wrong. */
export function marked(lab: Lab): Extension {
  return [blocks, marks, ViewPlugin.define((view) => new Marker(view, lab))];
}

class Marker {
  private path: string | null = null;
  private unwatch: () => void = () => undefined;
  private timer = 0;
  private seen: Known | null = null;
  private shown: readonly Problem[] = [];

  constructor(
    private readonly view: EditorView,
    private readonly lab: Lab,
  ) {
    this.follow();
  }

  update(update: ViewUpdate): void {
    if (!update.docChanged) return;
    this.follow();
    if (this.path !== null && touches(update)) this.soon(this.path);
  }

  destroy(): void {
    window.clearTimeout(this.timer);
    this.unwatch();
  }

  /** Watch the note that is in the editor, if it has a block. */
  private follow(): void {
    const path = this.view.state.field(blocks).length ? pathOf(this.view) : null;
    if (path === this.path) return;
    this.unwatch();
    this.path = path;
    this.unwatch = path === null ? () => undefined : this.lab.watch(path, () => this.show());
  }

  /** Have the note planned when its author pauses. */
  private soon(path: string): void {
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => (this.view.composing ? this.soon(path) : void this.lab.look(path)), QUIET_MS);
  }

  /** Show what a plan says, if it is of this very text: else the marks stay where they are until there is one. */
  private show(): void {
    const known = this.path === null ? null : this.lab.known(this.path);
    if (!known || known === this.seen || this.view.composing) return;
    if (plain(known.text) !== this.view.state.doc.toString()) return;
    this.seen = known;
    const problems = wrong(known.planned);
    if (JSON.stringify(problems) === JSON.stringify(this.shown)) return;
    this.shown = problems;
    this.view.dispatch({ effects: found.of(problems) });
  }
}

function touches({ startState, state, changes }: ViewUpdate): boolean {
  let within = false;
  changes.iterChangedRanges((fromA, toA, fromB, toB) => {
    const before = startState.field(blocks);
    const after = state.field(blocks);
    within ||= [fromA, toA].some((at) => fenceAt(before, startState.doc.lineAt(at).number));
    within ||= [fromB, toB].some((at) => fenceAt(after, state.doc.lineAt(at).number));
  });
  return within;
}

function fenceLike(doc: Text, from: number, to: number): boolean {
  for (let { number } = doc.lineAt(from); number <= doc.lineAt(to).number; number++) {
    if (isFenceLike(doc.line(number).text)) return true;
  }
  return false;
}

function wrong({ problems, blocks }: Planned): Problem[] {
  return [...problems, ...blocks.flatMap((block) => block.problems)];
}

function decorated(state: EditorState, problems: readonly Problem[]): DecorationSet {
  const builder = new RangeSetBuilder<Decoration>();
  const placed = problems.filter(({ line }) => line !== null && line >= 1 && line <= state.doc.lines);
  for (const problem of placed.sort((one, other) => (one.line ?? 0) - (other.line ?? 0))) {
    const line = state.doc.line(problem.line ?? 1);
    const indent = line.length - line.text.trimStart().length;
    const from = line.from + indent;
    if (from < line.to) builder.add(from, line.to, Decoration.mark({ class: "vaultlab-wrong" }));
    builder.add(line.to, line.to, Decoration.widget({ widget: new Mend(problem), side: 1 }));
  }
  return builder.finish();
}

/** The sentence and the mend, behind the line. */
class Mend extends WidgetType {
  constructor(private readonly problem: Problem) {
    super();
  }

  override eq(other: Mend): boolean {
    return other.problem.message === this.problem.message && other.problem.hint === this.problem.hint;
  }

  toDOM(): HTMLElement {
    const mend = createSpan({ cls: "vaultlab-mend", attr: { role: "note" } });
    prose(mend.createSpan(), this.problem.message);
    if (this.problem.hint) prose(mend.createSpan("vaultlab-hint"), this.problem.hint);
    return mend;
  }
}
