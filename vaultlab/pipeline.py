"""The journey of a vault's blocks: what is stale is asked; the answers become result notes and one embed line each."""

import fnmatch
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from vaultlab import claims, verdicts
from vaultlab.errors import NoteError, RunError, VaultError, VaultlabError
from vaultlab.notes import page, parse, passage, splice
from vaultlab.notes.answer import Quoted, Stress
from vaultlab.notes.note import Problem
from vaultlab.notes.page import Page, PageError, Shown
from vaultlab.result import Answer, Ask, Failure, Judgement, Progress, Quote, Refusal, Result, Verdict, without_texts
from vaultlab.stress import Trial
from vaultlab.survey import UNTRIED, Item, Look, Survey, ask_hash, card_of, failed_ask, models_of
from vaultlab.vault import config as configuration
from vaultlab.vault import files
from vaultlab.vault.config import Locked
from vaultlab.vault.journal import Journal

logger = logging.getLogger("vaultlab")

AskWorker = Callable[[Ask, Callable[[Progress], None]], Answer]
"""The way to a worker: `Lab.ask`."""

QUIET_S = 5.0
"""Obsidian saves every 2 s while its author types: a note is written only when nobody has for so long."""

TRIES = 5

BEHIND = 64
"""So many blocks further on are looked through for those that read the same text."""


@dataclass(frozen=True)
class Selection:
    """What to render. `id` is one block, asked for by hand: it runs even if only its texts or its version changed."""

    note: str = "*"
    id: str | None = None
    force: bool = False

    def wants(self, item: Item) -> bool:
        if self.id is not None and item.id != self.id:
            return False
        if not fnmatch.fnmatch(item.path, self.note) and not fnmatch.fnmatch(item.path, f"{self.note}.md"):
            return False
        if item.run == "frozen":
            return item.state == "error" or (self.id is not None and self.force)
        return self.by_hand or item.state in ("error", "missing", "reworded", "stale")

    @property
    def by_hand(self) -> bool:
        """Whether somebody asks for just this: what does not run by itself runs now."""
        return self.force or self.id is not None


def insisted(ask: Ask) -> Ask:
    """The same as somebody asks for it who knows how many points it has."""
    return replace(ask, limits=replace(ask.limits, points=max(ask.limits.points, len(ask.points))))


@dataclass(frozen=True)
class Outcome:
    """What became of a block: the answer, if a worker was asked, and what was written.

    `problem` is a sentence, `line` the note's line that it is about, `machine` whether it is the machine's owner, not
    the author, who can mend it; `again` whether nobody has to, for it may go well the next time.
    """

    item: Item
    answer: Answer | None = None
    judgements: tuple[Judgement, ...] = ()
    problem: str = ""
    hint: str = ""
    line: int | None = None
    machine: bool = False
    again: bool = False
    wrote: bool = False
    seconds: float = 0.0
    stress: Stress | None = None

    @property
    def verdict(self) -> Verdict | None:
        return verdicts.worst(self.judgements)


@dataclass
class Pipeline:
    """One rendering of one vault. `ask` is the way to a worker; `now` and `sleep` are the clock.

    `patient`: whether it waits for a note that is being typed; else the embed stays a debt, for `debts` to pay.
    `alone` stands around everything that is written. `theirs` says whether an editor writes the embed of this block;
    `offer` hands it that edit of the note as it was read.
    `left`: notes as this rendering has left them, path → hash: a note that nobody else has written is not being typed.
    """

    look: Look
    ask: AskWorker
    progress: Callable[[Item, Progress], None] = lambda item, progress: None
    waiting: Callable[[Path], None] = lambda path: None
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    patient: bool = True
    alone: Callable[[], AbstractContextManager[None]] = nullcontext
    theirs: Callable[[str], bool] = lambda id: False
    offer: Callable[[str, str, files.Read, splice.Edit], None] = lambda id, path, read, edit: None
    tried: set[tuple[str, str, str]] = field(default_factory=set)
    left: dict[Path, str] = field(default_factory=dict)

    def render(self, selection: Selection) -> Iterator[Outcome]:
        """Run what the selection wants, one block after another; what was edited meanwhile is looked at again."""
        survey = self.look()
        while True:
            self.problems(survey)
            todo = [item for item in survey.items if selection.wants(item) and self._untried(item)]
            if not todo:
                yield from self.debts(survey)
                return
            for at, item in enumerate(todo):
                self.tried.add((item.id or item.path, item.lab_ask, item.card))
                if selection.id is not None:
                    self.wish(survey, item)
                yield self.one(survey, item, selection, behind=todo[at + 1 : at + 1 + BEHIND])
            survey = self.look()

    def _untried(self, item: Item) -> bool:
        return (item.id or item.path, item.lab_ask, item.card) not in self.tried

    def one(
        self, survey: Survey, item: Item, selection: Selection, trial: Trial | None = None, behind: Iterable[Item] = ()
    ) -> Outcome:
        """Run this block of the survey, with a `trial` its variations too, and write what came out. What goes wrong is
        said in the outcome.

        `behind` are blocks that wait and are no less urgent: what they read of the same text may be read with it.
        """
        started = self.now()
        try:
            outcome = self._block(survey, item, selection, trial, behind)
        except VaultlabError as error:
            machine, again = isinstance(error, RunError), isinstance(error, VaultError)
            outcome = Outcome(item, problem=error.message, hint=error.hint, machine=machine, again=again)
        except Exception as error:  # one of the two broad ones: one author's note never stops another's
            logger.exception("%s of %s", item.name, item.path)
            said = f"vaultlab itself failed at this block ({type(error).__name__}): a fault of ours, not of your note."
            outcome = Outcome(item, problem=said, hint="`vaultlab doctor` says where the log is.", machine=True)
        return replace(outcome, seconds=self.now() - started)

    def _block(
        self, survey: Survey, item: Item, selection: Selection, trial: Trial | None, behind: Iterable[Item]
    ) -> Outcome:
        if item.state == "error":
            first = item.problems[0]
            with self.alone():
                wrote = item.speaks and self._write_error(survey, item, first, item.lab_ask)
            return Outcome(item, problem=first.message, hint=first.hint, line=first.line, wrote=wrote)
        assert item.ask is not None
        ask = replace(item.ask, force=selection.force, beside=_beside(item.ask, behind, force=selection.force))
        ask = insisted(ask) if selection.by_hand or trial else ask
        answer = self.ask(ask, lambda progress: self.progress(item, progress))
        stress = self._tried(item, trial) if trial and isinstance(answer, Result) else None
        with self.alone():
            # What the result note says may have changed meanwhile: a verdict was accepted, another run was quicker.
            standing = files.look_again(survey.root / survey.config.folder / f"{item.id}.md")
            stored = page.read(standing.decode("utf-8", "replace")) if standing is not None else None
            item = replace(item, stored=stored)
            if isinstance(answer, Result):
                return self._result(survey, item, answer, stress)
            return self._came_to_nothing(survey, item, answer)

    def _tried(self, item: Item, trial: Trial) -> Stress:
        """What becomes of the block's claims in the variations. What they come to is not the block's own failure."""
        assert item.ask is not None
        answer = self.ask(insisted(trial.ask(item.ask)), lambda progress: self.progress(item, progress))
        if isinstance(answer, Refusal):
            raise NoteError(f"A variation cannot be run: {answer.message}", answer.hint)
        if isinstance(answer, Failure):
            raise RunError(f"The variations could not be run: {answer.message}", answer.hint)
        return trial.found(answer, item.block.expect, item.known)

    def _came_to_nothing(self, survey: Survey, item: Item, answer: Refusal | Failure) -> Outcome:
        line = item.block.line_of(answer.field if isinstance(answer, Refusal) else None)
        final = isinstance(answer, Refusal) or answer.kind == "deterministic"
        wrote, machine = False, isinstance(answer, Failure) and answer.kind == "environment"
        if not (isinstance(answer, Failure) and answer.kind == "cancelled"):
            # What may go well the next time leaves no ask that could be found unchanged: it is tried again.
            asked = failed_ask(item, survey.config.limits) if final else UNTRIED
            wrote = self._write_error(survey, item, Problem(line, answer.message, answer.hint), asked)
        return Outcome(item, answer, (), answer.message, answer.hint, line, machine, wrote=wrote)

    # -- results ---------------------------------------------------------------------------------------------

    def _result(self, survey: Survey, item: Item, result: Result, stress: Stress | None) -> Outcome:
        try:
            lock = self._lock(survey, item, result)
            judgements = tuple(verdicts.judge(claims.parse(one), result, item.known) for one in item.block.expect)
        except (NoteError, RunError) as error:
            return self._unfit(survey, item, result, error)
        folder = survey.root / survey.config.folder
        journal = Journal(survey.root)
        here = self._still_there(survey, item)
        item = replace(item, path=here, card=card_of(replace(item, path=here)))
        path = folder / f"{item.id}.md"
        previous = files.look_again(path)
        new = previous is None
        if new and item.block.embed != "none":
            journal.owe(item.id or "", here)
        shown = self._figures(survey, item, result, keep=new)
        self.tried.add(
            (item.id or item.path, ask_hash(item, lock), item.card)
        )  # its models' hashes may only be known now
        written = Page(
            id=item.id or "",
            title=item.title,
            experiment=item.block.experiment or "",
            note=here.removesuffix(".md"),
            tests=item.block.tests,
            ask=ask_hash(item, lock),
            key=result.key,
            card=item.card,
            model=", ".join(models_of(item)),
            verdict=verdicts.worst(judgements),
            accepted=item.stored.accepted if item.stored else (),
            fields=item.fields,
            summary=result.summary,
            metrics=result.metrics,
            checks=result.checks,
            judgements=judgements,
            figures=shown,
            provenance={**result.provenance, "version": item.entry.version if item.entry else 0},
            points=result.points,
            stress=replace(stress, ask=ask_hash(item, lock)) if stress else None,
            quotes=tuple(_quoted(item, one) for one in result.quotes),
            said=result.said,
        )
        wrote = self._write_page(survey, path, written)
        self._drop_figures(folder, item, shown)
        wrote |= self._embed(survey, item.id or "", here)
        return Outcome(item, result, judgements, wrote=wrote, stress=stress)

    def _unfit(self, survey: Survey, item: Item, result: Result, error: NoteError | RunError) -> Outcome:
        """A result that its claims cannot be judged on, or that is of other weights than the vault's."""
        machine, line = isinstance(error, RunError), item.block.start
        asked = UNTRIED if machine else failed_ask(item, survey.config.limits)
        wrote = self._write_error(survey, item, Problem(line, error.message, error.hint), asked)
        return Outcome(item, result, (), error.message, error.hint, line, machine, wrote=wrote)

    def _still_there(self, survey: Survey, item: Item) -> str:
        """Where the block is now: its note may have been renamed while it ran. VaultError if it is gone."""
        try:
            if self._find(files.read(survey.root / item.path).text, item.path, item.id or "", survey):
                return item.path
        except VaultlabError:
            pass  # renamed or deleted: the whole vault is looked through
        for one in self.look().items:
            if one.id == item.id and one.block.experiment == item.block.experiment:
                return one.path
        raise VaultError(
            f"The block `{item.id}` is no longer in `{item.path}`: it was deleted, or its note was, while it ran.",
            "Its result is kept in the store, and shows as soon as the block is back.",
        )

    def _lock(self, survey: Survey, item: Item, result: Result) -> dict[str, Locked]:
        """The vault's list of models, with those of this result; RunError where a name means other weights here."""
        lock = dict(configuration.read_lock(survey.root))
        found = result.provenance.get("models", {})
        for name in models_of(item):
            if name not in found:
                continue
            here = Locked(**{part: found[name][part] for part in ("sha256", "family", "dtype")})
            if name in lock and lock[name] != here:
                raise RunError(
                    f"`{name}` on this machine is not the model that this vault's results are of.",
                    f"Take the line of `{name}` out of .vaultlab/models.lock to go over to the one here, "
                    f"or get the other: `vaultlab models remove {name}`, then pull or add it again.",
                )
            lock[name] = here
        if lock:
            configuration.write_lock(survey.root, lock)
        return lock

    def _figures(self, survey: Survey, item: Item, result: Result, *, keep: bool) -> dict[str, Shown]:
        """Write the figures. With `keep`, what already stands at a figure's path is none of ours: a copy is kept."""
        owed = item.id in Journal(survey.root).owed()
        shown = {}
        for name, figure in result.figures.items():
            file = f"figures/{item.id}.{name}.{figure.kind}"
            path = files.inside(survey.root, f"{survey.config.folder}/{file}")
            standing = files.look_again(path) if keep and not owed else None
            if standing is not None and standing != figure.content:
                self._keep(survey, path, standing)
            files.replace(path, figure.content)
            shown[name] = Shown(file, figure.alt)
        # A sweep has a figure for each metric: the card's is the one that the first claim speaks of.
        told = next((claims.parse(one).metric for one in item.block.expect), "")
        return {name: shown[name] for name in sorted(shown, key=lambda name: name != told)}

    def _drop_figures(self, folder: Path, item: Item, shown: dict[str, Shown]) -> None:
        """Figures that the last result had and this one has not."""
        if item.stored:
            for file in set(item.stored.figures) - {one.file for one in shown.values()}:
                if file.startswith(f"figures/{item.id}."):
                    (folder / file).unlink(missing_ok=True)

    # -- result notes ----------------------------------------------------------------------------------------

    def _write_error(self, survey: Survey, item: Item, problem: Problem, asked: str) -> bool:
        """The error above the last good result, which stays; a first error creates the note."""
        # Counted within the block: lines that come and go above it leave the result note as it is.
        error = PageError(problem.message, problem.hint, problem.line - item.block.start + 1)
        folder = survey.root / survey.config.folder
        path = folder / f"{item.id}.md"
        if files.look_again(path) is None and item.block.embed != "none":
            Journal(survey.root).owe(item.id or "", item.path)
        failed = Page(
            id=item.id or "",
            title=item.title,
            experiment=item.block.experiment or "",
            note=item.path.removesuffix(".md"),
            ask=asked,
            key=item.stored.key if item.stored else "",
            card=item.card,
            model=", ".join(models_of(item)) if item.ask and item.entry else "",
            status="failed",
            verdict=None,
            accepted=item.stored.accepted if item.stored else (),
            fields=item.stored.fields if item.stored else {},
            error=error,
        )
        wrote = self._write_page(survey, path, failed)
        return self._embed(survey, item.id or "", item.path) or wrote

    def _write_page(self, survey: Survey, path: Path, written: Page) -> bool:
        before = files.look_again(path)
        text = before.decode("utf-8", "replace") if before is not None else None
        new = page.write(written, text, survey.config.templates)
        if new == text:
            return False
        if before is not None and text is not None and page.touched(text):
            self._keep(survey, path, before)
        return files.replace(
            path, new.encode(), lambda content: page.read(content.decode("utf-8", "replace")) is not None
        )

    def _keep(self, survey: Survey, path: Path, content: bytes) -> None:
        """A copy of what somebody else wrote at a path of ours."""
        name = f"{path.stem}.{hashlib.sha256(content).hexdigest()[:8]}{path.suffix}"
        files.replace(files.inside(survey.root, f"{survey.config.folder}/kept/{name}"), content)

    # -- the author's note -----------------------------------------------------------------------------------

    def wish(self, survey: Survey, item: Item) -> None:
        """Its author runs this very block: an embed that is not there now, for they had deleted it, is owed again.

        Whoever deletes it after this has the last word.
        """
        id = item.id or ""
        if item.stored is None or item.block.embed == "none":
            return  # its first result brings the first embed
        try:
            text = files.read(files.inside(survey.root, item.path)).text
            block = self._find(text, item.path, id, survey)
            if block is None or splice.splice(text, block, id, survey.config.folder) is None:
                return
        except VaultlabError:
            pass  # it is being written: the debt is looked at again before it is paid
        Journal(survey.root).owe(id, item.path)

    def debts(self, survey: Survey) -> Iterator[Outcome]:
        """Embeds that a crash has left owing."""
        if not survey.root.is_dir():
            return  # the vault is away, and nothing is known of what is in it
        for id, path in Journal(survey.root).owed().items():
            if not (survey.root / survey.config.folder / f"{id}.md").exists():
                Journal(survey.root).paid(id)
                continue
            item = next((one for one in survey.items if one.id == id), None)
            if item is None:
                continue  # half a save, another branch, or gone: wherever it comes back, it has had no embed yet
            try:
                with self.alone():
                    wrote = self._embed(survey, id, item.path)
            except VaultlabError as error:
                said = f"The embed could not be put into `{path}`: {error.message}"
                yield Outcome(item, problem=said, hint=error.hint)
                continue
            if wrote:
                yield Outcome(item, wrote=True)

    def _embed(self, survey: Survey, id: str, path: str) -> bool:
        """Pay the debt of an embed: one line under the block, if the note does not show the result already."""
        journal = Journal(survey.root)
        if id not in journal.owed():
            return False
        note, theirs = files.inside(survey.root, path), self.theirs(id)
        for attempt in range(TRIES):
            read = files.read(note) if theirs else self._read_when_quiet(note)
            if read is None:
                return False
            if parse.parse(read.text).problems:
                return False  # a fence is being typed: what it hides is not known
            block = self._find(read.text, path, id, survey)
            if block is None and not files.quiet(note, QUIET_S, self.now()):
                return False  # it may be half of a note that is being saved
            edit = splice.splice(read.text, block, id, survey.config.folder) if block else None
            if edit is None:
                journal.paid(id)
                return False
            if theirs:
                self.offer(id, path, read, edit)
                return False
            new = splice.apply(read.text, edit).encode()
            try:
                files.swap(note, read.sha256, new, journal.intent)
            except VaultError:
                if attempt == TRIES - 1:
                    raise
                continue
            self.left[note] = hashlib.sha256(new).hexdigest()
            journal.paid(id)
            return True
        return False

    def _find(self, text: str, path: str, id: str, survey: Survey) -> parse.Block | None:
        """The block with this id in the note as it now is; an id that is not written is known by the block's place
        among those of its note that ask the same."""
        blocks = parse.parse(text).blocks
        written = [block for block in blocks if block.id == id]
        if written:
            return written[0]
        item = next((item for item in survey.items if (item.id, item.path) == (id, path)), None)
        if item is None:
            return None
        before, now = (
            [one for one in those if one.id is None and _asks(one) == _asks(item.block)]
            for those in (item.note.blocks, blocks)
        )
        if len(before) == len(now) and item.block in before:
            return now[before.index(item.block)]
        return next((one for one in now if one.start == item.block.start), None)

    def _read_when_quiet(self, note: Path) -> files.Read | None:
        """The note, once nobody is writing it; None if that is not now and this pipeline has no patience."""
        if not self.patient and note not in self.left and not files.quiet(note, QUIET_S, self.now()):
            return None
        read = files.read(note)
        if read.sha256 == self.left.get(note) or files.quiet(note, QUIET_S, self.now()):
            return read
        if not self.patient:
            return None
        self.waiting(note)
        while not files.quiet(note, QUIET_S, self.now()):
            self.sleep(0.2)
        return files.read(note)

    # -- problems of notes -----------------------------------------------------------------------------------

    def problems(self, survey: Survey) -> None:
        """`problems.md`: what no result note can say."""
        said: dict[str, list[Problem]] = {path: list(found) for path, found in survey.problems.items()}
        for item in survey.items:
            if not item.speaks:
                said.setdefault(item.path, []).extend(item.problems)
        path = survey.root / survey.config.folder / "problems.md"
        with self.alone():
            if said:
                text = page.problems({one: said[one] for one in sorted(said)}, survey.config.templates)
                files.replace(path, text.encode(), page.is_problems)
            elif (standing := files.look_again(path)) is not None and page.is_problems(standing):
                path.unlink()


def _beside(ask: Ask, behind: Iterable[Item], *, force: bool) -> tuple[Ask, ...]:
    """What those of them ask that read a text of this one; the worker has the text itself from this one."""
    read = {text.sha256 for text in ask.texts.values()}
    return tuple(
        replace(without_texts(one.ask), force=force)
        for one in behind
        if one.ask is not None and not read.isdisjoint(text.sha256 for text in one.ask.texts.values())
    )


def _quoted(item: Item, quote: Quote) -> Quoted:
    """Where a quoted place stands, by the very text that was asked about."""
    assert item.ask is not None
    source = item.ask.texts[quote.text].parts[quote.part][0]
    if passage.classify(str(item.fields.get(quote.text, ""))).kind in ("this note", "note", "folder", "vault"):
        return Quoted(quote, note=source.removesuffix(".md"))
    return Quoted(quote, source=source)


def _asks(block: parse.Block) -> tuple[object, ...]:
    return block.experiment, block.fields, block.sweep
