"""Where the daemon is asked: the verbs of its protocol, over what it knows and does."""

import json
import math
import platform
import re
import shlex
import threading
import time
import unicodedata
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from vaultlab import __version__, trust, wire
from vaultlab.chronicle import Chronicle, waits_for
from vaultlab.daemon import Daemon
from vaultlab.errors import NoteError, RunError, VaultError
from vaultlab.feed import Feed
from vaultlab.notes import page, partake, splice
from vaultlab.notes.note import Note
from vaultlab.notes.note import Problem as Found
from vaultlab.offers import Offers
from vaultlab.pipeline import Outcome as Came
from vaultlab.pipeline import Selection
from vaultlab.protocol import (
    PROTOCOL,
    Artifact,
    Cancelled,
    Edit,
    Experiments,
    Hello,
    Noted,
    Outcome,
    PaceAsk,
    PlanAsk,
    Planned,
    PlannedBlock,
    Problem,
    Queue,
    Queued,
    RunAsk,
    TrustAsk,
    Verbs,
    as_insertion,
)
from vaultlab.result import Ask, Refusal
from vaultlab.survey import Item, Survey, as_typed
from vaultlab.vault import files, presence
from vaultlab.vault.find import same_name
from vaultlab.vault.journal import Journal
from vaultlab.vault.presence import Request

SAVED_S = 3.0
"""So long a run that is asked for waits for the very text that it was asked with."""

WORD_S, DATA_S = 1.0, 20.0
"""So long a plan waits for the worker's word, and an interactive figure for its data: a worker may have to start first,
or be far away."""

_LOOK_S = 0.05
_HERE_S = 60.0
_UNTRUSTED = "This vault is not trusted on this machine, so nothing in it runs by itself."
_BY_HAND = "The plugin's settings say that blocks run only when they are asked to."
_NO_PART = ("This note takes no part, so nothing in it runs.", "Add to its properties: `tags: [experiment]`")
_DATA = "data"

_What = TypeVar("_What")
_Said = TypeVar("_Said")


@dataclass(frozen=True, slots=True)
class Worker:
    """What the worker is asked beside runs: `here`: its devices and models by name; `data` of a result, by key;
    `refuses`: what it would say against a run."""

    here: Callable[[], Mapping[str, list[str]]]
    data: Callable[[str], Mapping[str, Any] | None]
    refuses: Callable[[Ask], tuple[Refusal, ...]] = lambda ask: ()


class Desk:
    """Answers for this daemon. `connected`, set by whoever serves it, says whether a plugin is there; `awake` stands
    still while the machine sleeps."""

    def __init__(self, daemon: Daemon, worker: Worker, awake: Callable[[], float] = time.monotonic) -> None:
        self.daemon = daemon
        self.feed = Feed()
        self.connected: Callable[[], bool] = lambda: False
        self._worker = worker
        self._chronicle = Chronicle(daemon.jobs, self.feed)
        self._offers = Offers(self._chronicle.edit, lambda: self.connected(), awake)
        self._asking = ThreadPoolExecutor(4, "vaultlab asks the worker")
        self._late: set[str] = set()
        self._here: Mapping[str, list[str]] = {}
        self._asked_here = -math.inf
        self._progress: object = None
        self._survey: Survey | None = None
        self._elsewhere = ""
        self._tell = daemon.tell
        daemon.tell = self._told
        daemon.noticed = self._noticed
        daemon.pipeline.theirs = self._offers.theirs
        daemon.pipeline.offer = self._offer
        self.restrain()

    def close(self) -> None:
        """Wait for no worker any more."""
        self._asking.shutdown(wait=False, cancel_futures=True)

    @property
    def verbs(self) -> Verbs:
        return Verbs(
            hello=self.hello,
            experiments=self.experiments,
            plan=self.plan,
            run=self.run,
            cancel=self.cancel,
            events=self.feed.after,
            edit=self.edit,
            artifact=self.artifact,
            trust=self.trust,
            pace=self.pace,
        )

    # -- what there is

    def hello(self) -> Hello:
        self._ask_what_is_here()
        status, pending = self.daemon.status, self.daemon.jobs.pending()
        held = f"{status.held} blocks are new or changed at once; they wait until they are asked for."
        notices = (self.daemon.restraint, status.scans, held if status.held else "")
        return Hello(
            protocol=PROTOCOL,
            version=__version__,
            epoch=self.feed.epoch,
            last=self.feed.last,
            vault=self.daemon.root.name,
            machine=platform.node(),
            devices=tuple(self._here.get("devices", ())),
            models=tuple(self._here.get("models", ())),
            queue=Queue(
                queued=sum(job.state == "queued" for job in pending),
                running=next((str(job.id) for job in pending if job.state == "running"), None),
            ),
            trusted=trust.trusted(self.daemon.root),
            trust=trust.MEANS,
            by_hand=presence.by_hand(self.daemon.root),
            notices=tuple(notice for notice in notices if notice),
        )

    def _ask_what_is_here(self) -> None:
        """Learn it for the next time: a worker that has to start first takes seconds."""
        if time.monotonic() - self._asked_here < _HERE_S:
            return
        self._asked_here = time.monotonic()

        def learn() -> None:
            try:
                self._here = self._worker.here()
            except RunError as error:
                self._tell(str(error))

        threading.Thread(target=learn, daemon=True).start()

    def experiments(self) -> Experiments:
        known = self._seen().catalogue
        return Experiments(
            experiments={name: wire.experiment(entry) for name, entry in known.entries.items()}, broken=known.broken
        )

    # -- a note

    def plan(self, ask: PlanAsk) -> Planned:
        seen = self._seen()
        path = self._path(seen, ask.path)
        note, items = as_typed(seen, path, ask.text)
        owed = Journal(self.daemon.root).owed()
        problems = [wire.problem(one) for one in note.problems]
        if not note.takes_part and note.blocks:
            problems.insert(0, Problem(message=_NO_PART[0], hint=_NO_PART[1]))
        runs = note.takes_part and not note.problems
        blocks, until = [], time.monotonic() + WORD_S
        for item in items:
            edit = self._edit(seen, item, ask.text) if runs and item.id in owed else None
            refused = self._refused(item, until) if runs else ()
            item = replace(item, problems=(*item.problems, *refused))
            blocks.append(self._planned(seen, item, edit, "" if runs else problems[0].message))
        wanted = None if note.takes_part else partake.partake(ask.text)
        return Planned(
            takes_part=note.takes_part,
            partake=None if wanted is None else as_insertion(ask.text, wire.sha256(ask.text), wanted),
            problems=tuple(problems),
            blocks=tuple(blocks),
        )

    def _planned(self, seen: Survey, item: Item, edit: Edit | None, stands_still: str) -> PlannedBlock:
        job = self.daemon.jobs.last(str(self.daemon.root), item.id) if item.id else None
        block = item.block
        if job is not None and job.live:
            self._chronicle.follow(job)
        problems = tuple(map(wire.problem, item.problems))
        return PlannedBlock(
            id=item.id,
            experiment=block.experiment,
            title=item.title,
            start=block.start,
            end=block.end,
            sha256=block.sha256,
            state="error" if stands_still or problems else item.state,
            why=stands_still or (problems[0].message if problems else item.why),
            problems=problems,
            fields=wire.plain(item.fields),
            run=str(job.id) if job is not None and job.live else None,
            last=wire.last(item.id, item.stored, seen.config.folder) if item.id and item.stored else None,
            edit=edit,
        )

    def _refused(self, item: Item, until: float) -> tuple[Found, ...]:
        """What the experiment itself has against the block: only the worker knows its fields. A word that comes too
        late, from a worker that has to start first, is told as an event: the note is to be planned anew."""
        left = until - time.monotonic()
        if item.ask is None or item.problems or item.state in ("fresh", "reworded") or left <= 0:
            return ()
        answer = self._asking.submit(self._worker.refuses, item.ask)
        try:
            refusals = answer.result(left)
        except RunError:
            return ()  # it is said when the block runs
        except TimeoutError:
            if item.lab_ask not in self._late:  # once: a worker that is always late is not asked again and again
                self._late.add(item.lab_ask)
                answer.add_done_callback(lambda _: self.feed.tell("plan", path=wire.path(item.path)))
            return ()
        return tuple(Found(item.block.line_of(one.field), one.message, one.hint, one.field) for one in refusals)

    def _edit(self, seen: Survey, item: Item, text: str) -> Edit | None:
        assert item.id is not None
        wanted, path = splice.splice(text, item.block, item.id, seen.config.folder), wire.path(item.path)
        if wanted is None or path is None:
            return None
        return self._offers.plan(item.id, path, text, wire.sha256(text), wanted)

    # -- runs

    def run(self, ask: RunAsk) -> Queued:
        if not trust.trusted(self.daemon.root):
            mend = f"Trust it in the plugin's settings, or: vaultlab watch {shlex.quote(str(self.daemon.root))} --trust"
            raise RunError(_UNTRUSTED, mend)
        seen = self._seen()
        path = self._path(seen, ask.path)
        note, item = self._saved(seen, path, ask)
        if not note.takes_part:
            raise NoteError(*_NO_PART)
        for problem in (*note.problems, *item.problems):
            raise NoteError(problem.message, problem.hint, field=problem.field, line=problem.line)
        if not Selection(id=item.id).wants(item):
            typed = f"vaultlab render {shlex.quote(str(self.daemon.root))} --id {item.id} --force"
            mend = f"To run it all the same: {typed}"
            raise NoteError("The results of this block are frozen: they are cited.", mend)
        before = self.daemon.jobs.last(str(self.daemon.root), ask.id)
        self.daemon.ask_for(Request((ask.id,), named=True))
        job = self.daemon.jobs.last(str(self.daemon.root), ask.id)
        if job is not None and job.state == "quarantined":
            mend = f"Change it, or insist: vaultlab render {shlex.quote(str(self.daemon.root))} --id {ask.id} --force"
            raise RunError("This block has taken the worker down twice, so it is not run again.", mend)
        if job is None or not (job.live or before is None or job.id != before.id):
            raise VaultError("The block has changed meanwhile.", "Run it again.")
        self._chronicle.follow(job)
        self._chronicle.runs(self.daemon.status.running)
        place = self.daemon.jobs.place(job) or 0
        return Queued(run=str(job.id), place=place, why=waits_for(job, place, self.daemon.status.running))

    def _saved(self, seen: Survey, path: str, ask: RunAsk) -> tuple[Note, Item]:
        """The block that is meant, once the note on the disk has it. VaultError if it has not in time."""
        until, looked = time.monotonic() + SAVED_S, ""
        while True:
            with suppress(VaultError):
                read = files.read(files.inside(self.daemon.root, path))
                note, items = as_typed(seen, path, read.text) if read.sha256 != looked else (Note(), ())
                looked = read.sha256
                for item in items:
                    if (item.id, item.block.sha256) == (ask.id, ask.block_sha256):
                        return note, item
            if time.monotonic() >= until:
                said = f"`{path}` on the disk does not have the block `{ask.id}` as it was asked for."
                raise VaultError(said, "Save the note, and run the block again.")
            time.sleep(_LOOK_S)

    def cancel(self, run: str) -> Cancelled | None:
        job = self.daemon.jobs.get(int(run)) if re.fullmatch(r"[0-9]{1,18}", run) else None
        if job is None:
            return None
        cancelled = job.live and self.daemon.cancel(job.block)
        self._chronicle.runs(self.daemon.status.running)
        return Cancelled(run=run, cancelled=cancelled)

    # -- edits

    def edit(self, id: str, said: Outcome) -> Noted | None:
        with self.daemon.pipeline.alone():  # an embed is not written by us while it is taken
            block = self._offers.block_of(id)
            if block is None:
                return None
            journal = Journal(self.daemon.root)
            if block in journal.owed():
                self._offers.heard(block, said)
                if said.outcome == "applied":
                    journal.paid(block)
                return Noted()
            self._offers.forget(block)
        if said.outcome == "taken":
            raise VaultError("This edit is not wanted any more.", "Leave the note as it is.")
        return Noted()  # it was seen on the disk before it was said

    def _offer(self, id: str, path: str, read: files.Read, edit: splice.Edit) -> None:
        spelt = wire.path(path)
        if spelt is not None:
            self._offers.offer(id, spelt, read.text, read.sha256, edit)

    # -- results

    def artifact(self, block: str, name: str) -> Artifact | None:
        folder = self._seen().config.folder
        content = files.look_again(files.inside(self.daemon.root, f"{folder}/{block}.md"))
        text = content.decode("utf-8", "replace") if content is not None else ""
        stored = page.read(text)
        if stored is None:
            return None
        if name == _DATA:
            data = self._of_worker(DATA_S, self._worker.data, stored.key) if stored.key else None
            return wire.figure("json", json.dumps(data).encode()) if data else None
        for here, kind, file in wire.figures(block, stored):
            if here == name:
                drawn = files.look_again(files.inside(self.daemon.root, f"{folder}/{file}"))
                return wire.figure(kind, drawn, text, file) if drawn is not None else None
        return None

    def _of_worker(self, seconds: float, ask: Callable[[_What], _Said], what: _What) -> _Said:
        """RunError too where it does not answer so soon."""
        answer = self._asking.submit(ask, what)
        try:
            return answer.result(seconds)
        except TimeoutError:
            answer.cancel()
            raise RunError("The worker has not answered yet.", "Try again in a moment.") from None

    # -- trust, and what else decides whether anything runs by itself

    def trust(self, ask: TrustAsk) -> Noted:
        (trust.trust if ask.trusted else trust.distrust)(self.daemon.root)
        self.restrain()
        self.daemon.changes.news.set()
        return Noted()

    def pace(self, ask: PaceAsk) -> Noted:
        presence.run_by_hand(self.daemon.root, ask.by_hand)
        self.restrain()
        self.daemon.changes.news.set()
        return Noted()

    def restrain(self, elsewhere: str | None = None) -> None:
        """See whether what is new may run by itself; `elsewhere` is the other machine whose daemon has this vault."""
        if elsewhere is not None:
            self._elsewhere = elsewhere
        untrusted = "" if trust.trusted(self.daemon.root) else _UNTRUSTED
        taken = f"The daemon of {self._elsewhere} has this vault: here only what is asked for by hand runs."
        by_hand = _BY_HAND if presence.by_hand(self.daemon.root) else ""
        self.daemon.restraint = untrusted or (taken if self._elsewhere else "") or by_hand

    # -- what the daemon tells

    def _told(self, what: Came | str) -> None:
        if isinstance(what, Came):
            self._chronicle.outcome(what)
        self._tell(what)

    def _noticed(self) -> None:
        status, survey = self.daemon.status, self.daemon.survey
        if status.progress is not self._progress:
            self._progress = status.progress
            if status.running is not None and status.progress is not None:
                self._chronicle.step(status.running, status.progress)
                return
        if survey is not None and survey is not self._survey:
            self._survey = survey
            self._chronicle.states(survey)
        self._chronicle.runs(status.running)

    # -- the vault as it is known

    def _seen(self) -> Survey:
        return self.daemon.survey or self.daemon.pipeline.look()

    def _path(self, seen: Survey, path: str) -> str:
        """The path as the disk spells it. NoteError where it leads out of the vault, or is not an author's note."""
        files.inside(self.daemon.root, path)
        name = same_name(path)
        if name.startswith(f"{same_name(seen.config.folder)}/"):
            raise NoteError(f"`{path}` is vaultlab's own.", "Blocks stand in your notes.")
        plain = unicodedata.normalize("NFC", path)
        return next((one for one in seen.scan.notes if unicodedata.normalize("NFC", one) == plain), path)
