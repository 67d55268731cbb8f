"""A result as a note: an answer's numbers, figures and verdicts → Markdown, through templates/result.md.j2."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vaultlab.errors import NoteError
from vaultlab.notes import digits, escape, history, sections
from vaultlab.notes.answer import Page, PageError, Shown, Stored, Stress
from vaultlab.notes.fences import tokens_of
from vaultlab.notes.note import Problem
from vaultlab.notes.properties import Head, head
from vaultlab.notes.template import render
from vaultlab.notes.yaml12 import read as read_yaml
from vaultlab.result import decode

__all__ = [
    "Page",
    "PageError",
    "Shown",
    "Stored",
    "accept",
    "is_problems",
    "problems",
    "read",
    "stored_from_json",
    "stored_to_json",
    "touched",
    "write",
]

_NAMES = ("experiment", "status", "verdict", "note", "model", "ask", "key", "card", "page", "accepted")
_OURS = ("title", *(f"lab_{name}" for name in _NAMES))
_PROBLEMS = "lab_problems"
_FAILED = re.compile(r"\A(?:> [^\n]*\n|>\n)+\n\^error\n\n")
HEADLINES = 3


def write(page: Page, previous: str | None, templates: Path | None = None) -> str:
    """The result note's text; `previous` is the text that stands there now, for its history and others' properties.

    `templates`: the owner's folder of overrides. The same page over the same previous text gives the same bytes.
    NoteError where `previous` is not ours.
    """
    stored = read(previous) if previous is not None else None
    if previous is not None and stored is None:
        raise NoteError(
            f"`{page.id}.md` is a note of yours, not a result of vaultlab: it stays as it is.",
            f"Rename that note, or give the block another id than `{page.id}`.",
        )
    page = replace(page, stress=page.stress or _standing_stress(page, stored))
    old = head(previous) if previous is not None else Head(0, 1)
    body = _body(page, stored, (previous or "")[old.body_at :], templates)
    return f"---\n{_properties(page, stored, old, body)}---\n{body}"


def read(text: str) -> Stored | None:
    """What a result note says of itself; None where the file is not ours (it has no `lab_ask`)."""
    top = head(text)
    values = top.values
    if not isinstance(values.get("lab_ask"), str):
        return None
    words = ("experiment", "status", "model", "key", "card", "page")
    accepted = values.get("lab_accepted")
    said: dict[str, Any] = {name: str(values.get(f"lab_{name}") or "") for name in words}
    said |= _record(text[top.body_at :])
    return Stored(
        title=str(values.get("title") or ""),
        verdict=values.get("lab_verdict") or None,
        note=_unlinked(str(values.get("lab_note") or "")),
        ask=values["lab_ask"],
        accepted=tuple(map(str, accepted)) if isinstance(accepted, list) else (),
        metrics={name.removeprefix("lab_"): value for name, value in values.items() if _is_headline(name, value)},
        **said,
    )


def touched(text: str) -> bool:
    """Whether somebody changed the body, in more than white space, since we wrote it."""
    top = head(text)
    return top.values.get("lab_page") != _hash(text[top.body_at :])


def accept(text: str) -> str:
    """The result note with its verdicts, as they stand, accepted as findings; its body stays as it is."""
    stored, top = read(text), head(text)
    if stored is None:
        raise NoteError("This is no result note of vaultlab.", "Name the id of a block that has a result.")
    found = tuple(f"{claim}: {verdict}" for claim, verdict in stored.claims.items() if verdict != "supported")
    ours = _lines(top, lambda name, value: name in _OURS and name != "lab_accepted")
    others = _lines(top, lambda name, value: name not in _OURS and not _is_headline(name, value))
    return f"---\n{ours}{_accepted(found)}{_lines(top, _is_headline)}{others}---\n{text[top.body_at :]}"


def problems(found: Mapping[str, Sequence[Problem]], templates: Path | None = None) -> str:
    """`problems.md`: what no result note can say, by note (its path)."""
    notes = [
        {
            "link": escape.link(path.removesuffix(".md")),
            "problems": [
                {"line": one.line, "message": escape.sentence(one.message), "hint": escape.sentence(one.hint)}
                for one in ones
            ],
        }
        for path, ones in found.items()
    ]
    count = sum(map(len, found.values()))
    return f"---\ntitle: Problems\n{_PROBLEMS}: {count}\n---\n\n" + render(
        "problems.md.j2", {"notes": notes}, templates
    )


def is_problems(content: bytes) -> bool:
    """Whether a file is a `problems.md` of ours."""
    return _PROBLEMS in head(content.decode("utf-8", "replace")).entries


def stored_to_json(stored: Stored) -> dict[str, Any]:
    """As plain JSON types."""
    return asdict(stored)


def stored_from_json(fields: Mapping[str, Any]) -> Stored:
    """The inverse of `stored_to_json`, also after the trip through JSON has turned tuples into lists."""
    said: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in fields.items()}
    return Stored(**said)


def _body(page: Page, stored: Stored | None, old_body: str, templates: Path | None) -> str:
    standing = _FAILED.sub("", _line_feeds(old_body).lstrip("\n"))
    if page.error is None:
        runs = history.after(page, stored, history.read(standing))
        return "\n" + render("result.md.j2", sections.context(page, runs), templates)
    good = stored is not None and stored.key != ""
    failed = render("error.md.j2", sections.failed(page, "error" if good else "result"), templates)
    return f"\n{failed}\n{standing}" if good else f"\n{failed}"


def _standing_stress(page: Page, stored: Stored | None) -> Stress | None:
    """What the note says of its claims under stress: of those that still stand, while the block asks the same."""
    if stored is None or not stored.stress:
        return None
    try:
        stress: Stress = decode(Stress, stored.stress)
    except ValueError:  # somebody has changed it
        return None
    kept = tuple(one for one in stress.claims if one.claim in {judged.claim for judged in page.judgements})
    return replace(stress, claims=kept) if kept and stress.ask == page.ask else None


def _properties(page: Page, stored: Stored | None, old: Head, body: str) -> str:
    # What the last good result says stays beside an error: its verdict, its numbers, its key.
    standing = stored if page.error and stored and stored.key else None
    says = {
        "title": escape.quoted(page.title or page.id),
        "lab_experiment": escape.quoted(page.experiment),
        "lab_status": "failed" if page.error else page.status,
        "lab_verdict": (standing.verdict if standing else None if page.error else page.verdict) or "",
        "lab_note": _linked(page.note),
        "lab_model": escape.quoted(model) if (model := standing.model if standing else page.model) else "",
        "lab_ask": json.dumps(page.ask),
        "lab_key": json.dumps(key) if (key := standing.key if standing else page.key) else "",
        "lab_card": json.dumps(page.card) if page.card else "",
        "lab_page": json.dumps(_hash(body)),
    }
    lines = "".join(f"{name}: {value}\n" for name, value in says.items() if value)
    lines += _accepted(page.accepted)
    if standing:
        lines += _lines(old, _is_headline)
    else:
        shown = [(one.name, digits.headline(one)) for one in page.metrics if one.headline]
        lines += "".join(f"lab_{name}: {value}\n" for name, value in [one for one in shown if one[1]][:HEADLINES])
    return lines + _lines(old, lambda name, value: name not in _OURS and not _is_headline(name, value))


def _accepted(findings: Sequence[str]) -> str:
    return "".join(
        ["lab_accepted:\n"] * bool(findings) + [f"  - {json.dumps(one, ensure_ascii=False)}\n" for one in findings]
    )


def _lines(top: Head, wanted: Any) -> str:
    """The lines of those properties that are wanted, exactly as they stand, with what belongs to each."""
    lines = top.text.split("\n")[:-1]
    starts = [key.line - 2 for key, _ in top.entries.values()] + [len(lines)]
    kept = [
        line
        for at, (name, (_, node)) in enumerate(top.entries.items())
        if wanted(name, node.value)
        for line in lines[starts[at] : starts[at + 1]]
    ]
    return "".join(f"{line}\n" for line in kept)


def _is_headline(name: str, value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return name.startswith("lab_") and name not in _OURS and number


def _linked(note: str) -> str:
    link = escape.link(note)
    return json.dumps(f"[[{note}]]" if link.startswith("[[") else note, ensure_ascii=False)


def _unlinked(note: str) -> str:
    return note.removeprefix("[[").removesuffix("]]") if note.startswith("[[") else note


def _hash(body: str) -> str:
    return hashlib.sha256(" ".join(body.split()).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _record(body: str) -> dict[str, Any]:
    """What the page's own YAML under Provenance keeps for us; nothing where somebody has changed or removed it."""
    for token in tokens_of(body):
        if token.type == "fence" and token.info == "yaml":
            try:
                kept = read_yaml(token.content, 1, strict=True).value
            except NoteError:
                return {}
            return _checked(kept) if isinstance(kept, dict) else {}
    return {}


def _checked(kept: dict[str, Any]) -> dict[str, Any]:
    kinds: dict[str, type] = {"fields": dict, "version": int, "texts": dict, "ran": dict, "stress": dict}
    good = {name: kept[name] for name, kind in kinds.items() if isinstance(kept.get(name), kind)}
    lists = {name: tuple(map(str, kept[name])) for name in sections.LISTS if isinstance(kept.get(name), list)}
    claims = {claim: verdict for claim, _, verdict in (one.rpartition(": ") for one in lists.pop("claims", ()))}
    return good | lists | {"claims": claims}
