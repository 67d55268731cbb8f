"""What a note embeds, in all the forms that Obsidian and Markdown have for it, and which of it is ours."""

import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

from vaultlab.notes.fences import LINE_END
from vaultlab.notes.note import Embed

ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_EMBED = re.compile(
    r"!\[\[(?P<wiki>[^\[\]\n]+)\]\]|!\[[^\[\]]{0,2000}\]\(\s*(?:<(?P<angle>[^<>\n]*)>|(?P<plain>[^\s()]+))[^()\n]*\)"
)
_FIGURE = re.compile(r"([a-z0-9-]+)\.[^/]+\.(svg|png)")


def embeds(body: str, first_line: int, code: tuple[tuple[int, int], ...]) -> Iterator[Embed]:
    """Everything that the Markdown embeds: comments count, for there an author has put it away; code shows no embed."""
    if "![" not in body:
        return
    lines = LINE_END.split(body)
    for start, end in code:
        for number in range(start - first_line, end - first_line + 1):
            lines[number] = ""
    text = "\n".join(lines)
    for embed, _ in targets(text, first_line):
        yield embed


def targets(text: str, first_line: int = 1) -> Iterator[tuple[Embed, str]]:
    """Every embed in a text, with the characters that make it."""
    line, seen = first_line, 0
    for found in _EMBED.finditer(text):
        line, seen = line + text.count("\n", seen, found.start()), found.start()
        target = found["wiki"] or found["angle"] or found["plain"] or ""
        path, _, fragment = target.split("|")[0].rstrip("\\").partition("#")
        yield Embed(path.strip(), fragment.strip(), line), found[0]


def result_of(embed: Embed, folder: str = "vaultlab") -> str | None:
    """The id of the result that an embed shows, whole or in part or one figure of it; None where it shows another file.

    >>> result_of(Embed("../vaultlab/figures/pentagon.weights.svg", "", 1))
    'pentagon'
    """
    parts = _parts(embed.path)
    ours = _parts(folder)
    if parts[: len(ours)] != ours or len(parts) == len(ours):
        return None
    rest = parts[len(ours) :]
    if len(rest) == 2 and rest[0] == "figures":
        return _of_figure(rest[1])
    return _of_page(rest[0]) if len(rest) == 1 else None


def shows(embed: Embed, id: str, folder: str = "vaultlab") -> bool:
    """Whether an embed shows the result `id`. A bare name counts: Obsidian shortens links to that."""
    if result_of(embed, folder) == id:
        return True
    parts = _parts(embed.path)
    return len(parts) == 1 and id in (_of_page(parts[0]), _of_figure(parts[0]))


def _parts(path: str) -> list[str]:
    plain = unicodedata.normalize("NFC", unquote(path)).casefold()
    return [part for part in plain.split("/") if part not in ("", ".", "..")]


def _of_page(name: str) -> str | None:
    stem = name.removesuffix(".md")
    return stem if ID.fullmatch(stem) else None


def _of_figure(name: str) -> str | None:
    found = _FIGURE.fullmatch(name)
    return found[1] if found and ID.fullmatch(found[1]) else None
