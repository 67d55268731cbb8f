"""What a vault asks and how it has been answered: every block with its id, its Ask and its state. Needs no worker."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from vaultlab import catalogue, claims, trust
from vaultlab.catalogue import Catalogue, Entry
from vaultlab.errors import NoteError
from vaultlab.notes import ids, page, parse, passage, sweep
from vaultlab.notes.ids import Named
from vaultlab.notes.note import Block, Note, Problem
from vaultlab.notes.page import Stored
from vaultlab.result import Ask, Default, Limits
from vaultlab.texts import COLLECTIONS, Texts
from vaultlab.vault import config as configuration
from vaultlab.vault import files
from vaultlab.vault.config import Config, Locked
from vaultlab.vault.index import Index, Scan

State = Literal["error", "missing", "fresh", "reworded", "stale", "failed", "outdated", "reread", "large"]
"""error: the block cannot run as written. reworded: only claims, title or place changed: judged anew, nothing runs.
failed: this very ask was refused or failed, and would again. outdated: the experiment has a new version. reread: a
collection of texts that it reads has changed. large: it is missing or stale, and its sweep has more points than run by
themselves. The last three run only when asked for."""

UNTRIED = "untried"
"""The `lab_ask` of a block that the machine could not run: it is no block's ask, so it is tried again."""


@dataclass(frozen=True)
class Item:
    """A block and everything known about it without running it."""

    path: str
    block: Block
    note: Note
    id: str | None = None
    entry: Entry | None = None
    ask: Ask | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    lab_ask: str = ""
    card: str = ""
    stored: Stored | None = None
    state: State = "error"
    why: str = ""
    problems: tuple[Problem, ...] = ()
    taken: bool = False
    given: Mapping[str, "Item"] = field(default_factory=dict)
    """The blocks whose results this one builds on, by the field that names them."""

    @property
    def speaks(self) -> bool:
        """Whether the block has a result note to say its errors in: an id, and no note of the author's in its place."""
        return self.id is not None and not self.taken

    @property
    def name(self) -> str:
        """The id, or where the block is if it has none."""
        return self.id or f"{self.path}:{self.block.start}"

    @property
    def run(self) -> str:
        return self.block.run or self.note.run

    @property
    def title(self) -> str:
        return self.block.title or (self.id or "").replace("-", " ").capitalize()

    @property
    def known(self) -> claims.Known:
        """The experiment's metrics, as claims want them."""
        return {one["name"]: one["forced"] for one in self.entry.metrics} if self.entry else {}


@dataclass(frozen=True)
class Survey:
    """A vault as it stands.

    `problems`: path → what is wrong with the note itself; `idle`: path of a note that takes no part → its blocks.
    """

    root: Path
    config: Config
    catalogue: Catalogue
    scan: Scan
    items: tuple[Item, ...]
    problems: Mapping[str, tuple[Problem, ...]]
    idle: Mapping[str, int]
    lock: Mapping[str, Locked]

    @property
    def orphans(self) -> tuple[str, ...]:
        """Ids that have a result note but no block any more."""
        asked = {item.id for item in self.items}
        return tuple(id for id in sorted(page_ids(self.scan, self.config.folder)) if id not in asked)


def page_ids(scan: Scan, folder: str) -> dict[str, Stored]:
    """Every result note of ours: id → what it says."""
    start = f"{folder}/"
    return {
        path.removeprefix(start).removesuffix(".md"): page.stored_from_json(entry.parsed)
        for path, entry in scan.pages.items()
        if "/" not in path.removeprefix(start)
    }


def survey(root: Path, owner: Path, experiments: Catalogue) -> Survey:
    """Look at the vault at `root`; `owner` is the folder of the owner's configuration."""
    config = configuration.load(root, owner)
    scan = Index(root, _stamp()).scan(config, _note, _page)
    notes = {path: parse.from_json(entry.parsed) for path, entry in scan.notes.items()}
    problems: dict[str, tuple[Problem, ...]] = {
        path: (Problem(1, sentence),) for path, sentence in scan.problems.items()
    }
    problems |= {path: note.problems for path, note in notes.items() if note.problems and note.takes_part}
    taking = {path: note for path, note in notes.items() if note.takes_part and path not in problems}
    stored = page_ids(scan, config.folder)
    named = ids.assign(taking, {id: f"{one.note}.md" for id, one in stored.items()}, config.folder)
    lock = configuration.read_lock(root)
    those = {one.id: (one, taking[one.path]) for one in named if one.id and not one.problem}
    look = _Look(root, config, experiments, Texts(config, root, scan), lock, those, stored.get)
    items = tuple(look.item(one, taking[one.path]) for one in named)
    idle = {path: len(note.blocks) for path, note in notes.items() if note.blocks and not note.takes_part}
    return Survey(root, config, experiments, scan, items, problems, idle, lock)


def as_typed(seen: Survey, path: str, text: str) -> tuple[Note, tuple[Item, ...]]:
    """A note of that vault as it stands in an editor, and its blocks, as if it took part; results as they stand now.

    VaultError, NoteError where a result note or the list of models cannot be read.
    """
    folder, note = seen.config.folder, parse.parse(text)
    taking = {item.path: item.note for item in seen.items} | {path: replace(note, takes_part=True)}
    owners = {id: f"{one.note}.md" for id, one in page_ids(seen.scan, folder).items()}
    texts = Texts(seen.config, seen.root, seen.scan)
    texts.put(path, text)
    named = ids.assign(taking, owners, folder)
    notes = {**taking, path: note}
    those = {one.id: (one, notes[one.path]) for one in named if one.id and not one.problem}
    lock = configuration.read_lock(seen.root)
    pages = seen.root / folder
    look = _Look(seen.root, seen.config, seen.catalogue, texts, lock, those, lambda id: _standing(pages / f"{id}.md"))
    return note, tuple(look.item(one, note) for one in named if one.path == path)


def _standing(page_file: Path) -> Stored | None:
    content = files.look_again(page_file)
    return page.read(content.decode("utf-8", "replace")) if content is not None else None


def _stamp() -> str:
    """Another parser reads everything again."""
    code = Path(parse.__file__).parent
    return hashlib.sha256(
        "".join(f"{one.name}{one.stat().st_size}{one.stat().st_mtime_ns}" for one in sorted(code.glob("*.py"))).encode()
    ).hexdigest()


def _note(text: str) -> dict[str, Any] | None:
    note = parse.parse(text) if parse.may_have_blocks(text) else None
    return parse.to_json(note) if note and (note.blocks or note.problems) else None


def _page(text: str) -> dict[str, Any] | None:
    stored = page.read(text)
    return page.stored_to_json(stored) if stored else None


@dataclass(frozen=True)
class _Look:
    """What is needed to look at one block after another."""

    root: Path
    config: Config
    catalogue: Catalogue
    texts: Texts
    lock: Mapping[str, Locked]
    named: Mapping[str, tuple[Named, Note]]
    stored: Callable[[str], Stored | None]
    above: tuple[str, ...] = ()
    """The blocks on whose behalf this one is looked at, each building on the next."""

    def item(self, named: Named, note: Note) -> Item:
        block, stored = named.block, self.stored(named.id) if named.id else None
        item = Item(named.path, block, note, named.id, stored=stored)
        problems = [*block.problems, *([named.problem] if named.problem else [])]
        if named.id and stored is None and self.file(f"{named.id}.md").exists():
            item = replace(item, taken=True)
            problems.append(
                Problem(
                    block.start,
                    f"`{named.id}.md` in the results folder is a note of yours, no result: it stays as it is.",
                    f"Rename that note, or give the block another id than `{named.id}`.",
                    "id",
                )
            )
        try:
            if problems:
                return _spoilt(item, problems)
            item = replace(item, entry=self._entry(block))
            item = self._asked(item)
            for number, claim in enumerate(block.expect):
                try:
                    claims.check(claims.parse(claim), item.known, item.ask.points if item.ask else ())
                except NoteError as error:
                    problems.append(_problem(error, block, f"expect.{number}"))
        except NoteError as error:
            problems.append(_problem(error, block))
        return _spoilt(item, problems) if problems else self._if_large(self._with_state(item))

    def _if_large(self, item: Item) -> Item:
        points, most = len(item.ask.points) if item.ask else 0, self.config.limits.points
        if item.state not in ("missing", "stale") or points <= most:
            return item
        why = f"its sweep has {points} points, and more than {most} run only when asked for"
        return replace(item, state="large", why=why)

    def file(self, name: str) -> Path:
        """A file of the results folder."""
        return self.root / self.config.folder / name

    def _entry(self, block: Block) -> Entry:
        name = block.experiment or ""
        if name not in self.catalogue:
            near = self.catalogue.nearest(name)
            raise NoteError(
                f"There is no experiment `{name}`.",
                (f"Did you mean `{near}`? " if near else "") + f"There are: {', '.join(self.catalogue)}.",
                field=name,
            )
        return self.catalogue[name]

    def _asked(self, item: Item) -> Item:
        block, entry = item.block, item.entry
        assert entry is not None
        points = sweep.expand(block.sweep)
        swept = set(block.sweep)
        defaults = {
            name: Default(name, value, origin)
            for origin, values in (
                ("the vault's .vaultlab/config.toml", self.config.defaults),
                (f"this note's vaultlab-{'{}'} property", item.note.defaults),
            )
            for name, value in values.items()
            if name in entry.fields and name not in block.fields and name not in swept
        }
        defaults = {name: replace(one, origin=one.origin.format(name)) for name, one in defaults.items()}
        merged = {**{name: one.value for name, one in defaults.items()}, **block.fields}
        for kind in ("text", "list"):
            for name in set(entry.of_kind(kind)) & swept:
                raise NoteError(
                    f"`{name}` is a {kind}, and a sweep goes over numbers and words only.",
                    f"Write one block for each {kind}.",
                    field=f"sweep.{name}",
                )
        texts = self.texts.of(entry, merged, item.path)
        given = self._given(entry, merged, item)
        ask = Ask(
            item.id or "",
            entry.name,
            block.fields,
            tuple(defaults.values()),
            texts,
            points,
            limits=self.config.limits,
            version=entry.version,
            given={name: one.ask for name, one in given.items() if one.ask},
        )
        fields = {**merged, **{name: list(values) for name, values in block.sweep.items()}}
        item = replace(item, ask=ask, fields=fields, given=given)
        for name in models_of(item):
            trust.model(name, self.config.models)
        return replace(item, lab_ask=ask_hash(item, self.lock), card=card_of(item))

    def _given(self, entry: Entry, merged: Mapping[str, Any], item: Item) -> dict[str, Item]:
        """The blocks whose results this one builds on. NoteError where one is not there, or cannot run itself."""
        given = {}
        for name in entry.of_kind("result"):
            value = merged.get(name, entry.defaults[name])
            if isinstance(value, str):
                try:
                    given[name] = self._upstream(value, item)
                except NoteError as error:
                    raise NoteError(error.message, error.hint, field=name) from error
        return given

    def _upstream(self, value: str, item: Item) -> Item:
        folder, reference = f"{self.config.folder}/", passage.classify(value)
        id = reference.path.removeprefix(folder).removesuffix(".md")
        if reference.kind != "note" or not reference.path:
            raise NoteError(f"`{value}` is no result.", f'Name it as its embed does: "[[{folder}its-id]]".')
        if id not in self.named:
            near = passage.nearest(id, list(self.named))
            mend = f'Did you mean "[[{folder}{near}]]"?' if near else "Write that block first, or mend its id."
            raise NoteError(f"No block of this vault has the id `{id}`.", mend)
        above = (*self.above, item.id or "")
        if id in above:
            circle = " → ".join(f"`{one}`" for one in (*above[above.index(id) :], id))
            raise NoteError(f"This block builds on itself: {circle}.", "Let one of them name another result.")
        it = replace(self, above=above).item(*self.named[id])
        if it.problems:
            raise NoteError(f"`{id}`, on which it builds, cannot run: {it.why}", f"Mend that block, in `{it.path}`.")
        return it

    def _with_state(self, item: Item) -> Item:
        stored = item.stored
        if stored is None:
            return replace(item, state="missing", why="it has not run yet")
        if stored.status == "failed":
            if stored.ask == failed_ask(item, self.config.limits):
                why = "it cannot run as it is; its result note says why"
                return replace(item, state="failed", why=why)
            return replace(item, state="stale", why="its last run came to nothing; it is tried again")
        if stored.ask == item.lab_ask:
            gone = [one for one in stored.figures if not self.file(one).exists()]
            if gone:
                return replace(item, state="reworded", why=f"its figure {gone[0]} is gone")
            if stored.card != item.card:
                return replace(item, state="reworded", why="its title, its claims or its place changed")
            return replace(item, state="fresh")
        return replace(item, **_reason(item, stored, self.lock))


def models_of(item: Item) -> tuple[str, ...]:
    """The names of the models that a block asks about."""
    assert item.ask is not None
    assert item.entry is not None
    names = [name for one in item.given.values() for name in models_of(one)]
    for kind in item.entry.of_kind("model"):
        default = item.fields.get(kind, item.entry.defaults[kind])
        names += [point[kind] for point in item.ask.points if kind in point] or [default]
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))


def ask_hash(
    item: Item, lock: Mapping[str, Locked], version: int | None = None, others: Mapping[str, str] | None = None
) -> str:
    """The hash of what a block asks; `version` and `others` (field → hash, of texts and of results that it builds on)
    put another one in the place of today's."""
    assert item.ask is not None
    assert item.entry is not None
    hashes = {name: one.sha256 for name, one in item.ask.texts.items()}
    hashes |= {name: ask_hash(one, lock) for name, one in item.given.items()}
    asked = {name: value for name, value in item.fields.items() if name not in item.block.sweep and name not in hashes}
    return catalogue.lab_ask(
        item.entry.name,
        item.entry.version if version is None else version,
        asked,
        item.ask.points,
        {name: lock[name].sha256 for name in models_of(item) if name in lock},
        {**hashes, **(others or {})},
    )


def card_of(item: Item) -> str:
    """The hash of what the result note says and no run depends on."""
    block = item.block
    said = [item.title, *block.expect, block.tests, item.path]
    return hashlib.sha256("\0".join(said).encode()).hexdigest()[:16]


def failed_ask(item: Item, limits: Limits) -> str:
    """The `lab_ask` of a block that failed as it stands: under other limits of the owner's it may not."""
    return f"{item.lab_ask}-{hashlib.sha256(repr(limits).encode()).hexdigest()[:8]}"


def _reason(item: Item, stored: Stored, lock: Mapping[str, Locked]) -> dict[str, Any]:
    """Why a result no longer answers its block: the state, and a sentence."""
    assert item.ask is not None
    assert item.entry is not None
    version = stored.version
    if version and version != item.entry.version and ask_hash(item, lock, version) == stored.ask:
        return {
            "state": "outdated",
            "why": f"{item.entry.name} has a new version, {item.entry.version}; the result is of version {version}",
        }
    collections = {
        name: stored.texts[name]
        for name, text in item.ask.texts.items()
        if name in stored.texts and text.name.startswith(COLLECTIONS) and stored.texts[name] != text.sha256
    }
    if collections and ask_hash(item, lock, others=collections) == stored.ask:
        return {"state": "reread", "why": "the notes that it reads have changed"}
    waiting = {name: one for name, one in item.given.items() if one.state in ("outdated", "reread")}
    before = {name: one.stored.ask for name, one in waiting.items() if one.stored}
    if before and ask_hash(item, lock, others=before) == stored.ask:
        first = next(iter(waiting.values()))
        return {"state": first.state, "why": f"of `{first.id}`, on which it builds: {first.why}"}
    return {"state": "stale", "why": difference(item, stored)}


def difference(item: Item, stored: Stored) -> str:
    """What the block asks now against what its result was run with, in words."""
    old, new = stored.fields, item.fields
    said = [
        f"{name} {old.get(name, 'by default')} → {new.get(name, 'by default')}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]
    if stored.experiment != (item.entry.name if item.entry else ""):
        said.insert(0, f"{stored.experiment} → {item.block.experiment}")
    if item.ask and any(stored.texts.get(name, text.sha256) != text.sha256 for name, text in item.ask.texts.items()):
        said.append("the text that it reads changed")
    builds = ", ".join(f"`{one.id}`" for one in item.given.values())
    return "; ".join(said) or f"what it {f'builds on, {builds},' if builds else 'was run with'} has changed"


def _spoilt(item: Item, problems: list[Problem]) -> Item:
    """A block that cannot run as written. Its ask is its problems, so that mending it makes it stale."""
    said = "\0".join(f"{one.message} {one.hint} {one.line - item.block.start}" for one in problems)
    digest = "error-" + hashlib.sha256(said.encode()).hexdigest()[:32]
    return replace(item, problems=tuple(problems), lab_ask=digest, state="error", why=problems[0].message)


def _problem(error: NoteError, block: Block, key: str | None = None) -> Problem:
    """An error at the line of the key that it is about; else at the block's first line."""
    key = key or error.field
    line = error.line or block.lines_of.get(key or "", block.start)
    return Problem(line, error.message, error.hint, key)


Look = Callable[[], Survey]
