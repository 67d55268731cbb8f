"""Which block has which id, over a whole vault: written, read off its embed, or made from its title."""

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

from vaultlab.notes.embed import ID, result_of
from vaultlab.notes.note import Block, Note, Problem

_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
# A file of vaultlab's own folder that is no result note.
_OURS = {"problems"}


@dataclass(frozen=True, slots=True)
class Named:
    """A block with its id, or with the problem that leaves it without one."""

    path: str
    block: Block
    id: str | None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class _Claim:
    """A block that has or shows an id; `written` is whether it says so itself."""

    path: str
    block: Block
    id: str
    written: bool


def assign(notes: Mapping[str, Note], owners: Mapping[str, str], folder: str = "vaultlab") -> tuple[Named, ...]:
    """An id for every block of the notes that take part, in the order of paths and lines.

    `owners`: for every result note there is, its id → the path of the note that it names as its own. A block whose
    experiment cannot be read and that nothing names stays without an id and without a further problem.
    """
    named: list[Named] = []
    claims: list[_Claim] = []
    nameless: list[tuple[str, Block]] = []
    for path in sorted(notes):
        if not notes[path].takes_part:
            continue
        for block in notes[path].blocks:
            found = _claim(path, block, notes[path], folder)
            if isinstance(found, Named):
                named.append(found)
            elif found:
                claims.append(found)
            else:
                nameless.append((path, block))
    taken = {claim.id for claim in claims}
    taken |= {id for id, owner in owners.items() if owner in notes}
    named += _settle(claims, owners, taken)
    named += _christen(nameless, owners, taken)
    return tuple(sorted(named, key=lambda one: (one.path, one.block.start)))


def slug(title: str) -> str:
    """A title as the beginning of an id: ASCII letters and digits, hyphens between them.

    >>> slug("Fünf Merkmale, zwei Dimensionen!")
    'funf-merkmale-zwei-dimensionen'
    """
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _claim(path: str, block: Block, note: Note, folder: str) -> _Claim | Named | None:
    if block.id is not None:
        wrong = _wrong(block.id)
        if wrong:
            line = block.lines_of.get("id", block.lines_of.get(block.experiment or "", block.start))
            hint = "An id is made of a-z, 0-9 and hyphens, at most 64 of them"
            hint += f": `{better}`." if (better := _mended(block.id)) else "."
            return Named(path, block, None, Problem(line, wrong, hint, "id"))
        return _Claim(path, block, block.id, written=True)
    if block.embed == "none":
        example = f"{block.experiment or 'superposition'}: {_free(block, path, set())}"
        problem = Problem(
            block.start, "A block with `embed: none` needs an id.", f"Write one, as in `{example}`.", "id"
        )
        return Named(path, block, None, problem)
    following = min((other.start for other in note.blocks if other.start > block.start), default=None)
    for embed in note.embeds:
        if embed.line > block.end and (following is None or embed.line < following):
            shown = result_of(embed, folder)
            if shown is not None and not _wrong(shown):
                return _Claim(path, block, shown, written=False)
    return None


def _wrong(id: str) -> str:
    if not ID.fullmatch(id):
        return f"`{id[:80]}` is no id."
    if id in _DEVICES:
        return f"`{id}` is a device's name on Windows, where no file can be called so."
    if id in _OURS:
        return f"`{id}` is a note that vaultlab itself writes."
    return ""


def _mended(id: str) -> str:
    mended = slug(id)[:58].strip("-")
    return f"{mended}-1" if mended in _DEVICES | _OURS else mended


def _settle(claims: list[_Claim], owners: Mapping[str, str], taken: set[str]) -> list[Named]:
    """Of the claims on one id, its result's owner comes first, then a written one, then the first in the vault."""
    named = []
    keepers: dict[str, _Claim] = {}
    ranked = sorted(claims, key=lambda c: (c.path != owners.get(c.id), not c.written, c.path, c.block.start))
    for claim in ranked:
        keeper = keepers.setdefault(claim.id, claim)
        if keeper is claim:
            named.append(Named(claim.path, claim.block, claim.id))
            continue
        free = next(name for n in count(2) if (name := f"{claim.id[:60].rstrip('-')}-{n}") not in taken)
        taken.add(free)
        where = f"line {keeper.block.start}" if keeper.path == claim.path else f"`{keeper.path}`"
        message = f"The id `{claim.id}` belongs to the block in {where}."
        experiment = claim.block.experiment or "superposition"
        hint = f"Give this one its own, as in `{experiment}: {free}`"
        hint += "." if claim.written else ", and take the other's embed away."
        line = claim.block.lines_of.get("id", claim.block.lines_of.get(experiment, claim.block.start))
        named.append(Named(claim.path, claim.block, None, Problem(line, message, hint, "id")))
    return named


def _christen(nameless: list[tuple[str, Block]], owners: Mapping[str, str], taken: set[str]) -> list[Named]:
    given: set[str] = set()
    named = []
    for path, block in nameless:
        if block.experiment is None:
            named.append(Named(path, block, None))
            continue
        own = {id for id, owner in owners.items() if owner == path}
        id = _free(block, path, (taken - own) | given)
        given.add(id)
        named.append(Named(path, block, id))
    return named


def _free(block: Block, path: str, taken: set[str]) -> str:
    experiment = slug(block.experiment or "block")[:30]
    title = slug(block.title)[: 64 - 8 - len(experiment)].strip("-")
    plain = f"{title}-{experiment}"
    if title and plain not in taken:
        return plain
    for number in count():
        salt = path if number == 0 else f"{path}#{number}"
        mark = hashlib.sha256(unicodedata.normalize("NFC", salt).encode()).hexdigest()[:6]
        id = f"{plain.strip('-')}-{mark}"
        if id not in taken:
            return id
    raise AssertionError("count() does not end")
