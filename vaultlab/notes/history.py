"""The last runs of a block, newest first: what changed in it, and the numbers. They are kept in the page itself."""

import re
from collections.abc import Mapping
from typing import Any

from vaultlab.notes import digits, escape
from vaultlab.notes.answer import Page, Stored

RUNS = 20
_SECTION = re.compile(r"^## History\n(?P<runs>.*?)^\^history$", re.MULTILINE | re.DOTALL)
_RUN = re.compile(r"- \*\*(\d+)\*\* .*")


def read(body: str) -> tuple[str, ...]:
    """The runs that a page lists, as they stand there."""
    found = _SECTION.search(body)
    return tuple(one for one in found["runs"].split("\n") if _RUN.fullmatch(one)) if found else ()


def after(page: Page, stored: Stored | None, runs: tuple[str, ...]) -> tuple[str, ...]:
    """The runs with this page's own before them, unless it is the run that the page tells of already."""
    if stored is not None and runs and stored.key == page.key:
        return runs
    newest = _RUN.fullmatch(runs[0]) if runs else None
    number = int(newest[1]) + 1 if newest else 1
    changed = _changes(stored, page) if stored is not None and runs else "first run"
    said = [changed, _numbers(page)]
    return (f"- **{number}** " + " · ".join(one for one in said if one), *runs)[:RUNS]


def _changes(stored: Stored, page: Page) -> str:
    old, new = stored.fields, page.fields
    said = [f"{stored.experiment} → {page.experiment}"] if stored.experiment != page.experiment else []
    for name in dict.fromkeys([*old, *new]):
        if name not in new:
            said.append(f"{name} by default")
        elif name not in old:
            said.append(f"{name} {setting(new[name])}")
        elif old[name] != new[name]:
            said.append(f"{name} {setting(old[name])} → {setting(new[name])}")
    version = page.provenance.get("version")
    if not said and stored.version and version and version != stored.version:
        said.append(f"version {stored.version} → {version} of the experiment")
    return escape.plain(", ".join(said)) or "the same block over another model or text"


def _numbers(page: Page) -> str:
    if page.points:
        return f"{len(page.points)} points"
    shown = [metric for metric in page.metrics if metric.headline][:3] or page.metrics[:3]
    return ", ".join(f"{escape.plain(metric.name)} {digits.value(metric.value)}" for metric in shown)


def setting(value: Any) -> str:
    """A field's value in few words; a long text by its beginning."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, int | float):
        return digits.show(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(setting, value[:6]))}{', …' if len(value) > 6 else ''}]"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {setting(inner)}" for name, inner in value.items())
    text = escape.line(str(value))
    return text if len(text) <= 60 else text[:59] + "…"
