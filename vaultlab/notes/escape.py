"""Strings that are not ours, made harmless: they read as they are and make no link, embed, tag, comment or fence.

Model output, titles, notes' names and error messages pass through here on their way into any note.
"""

import json
import re
import unicodedata

# Any of these may open a construct of Markdown or Obsidian wherever it stands.
_SPECIAL = re.compile(
    r"[\\`*_\[\]<>|~$^#@]|&(?=#?\w)|%(?=%)|(?<=%)%|=(?==)|(?<==)=|:(?=[:/])|(?<=www)\.", re.IGNORECASE
)
# These only at the start of a line, where they open a list, a quote, a rule or an underline.
_OPENING = re.compile(r"^(?:(\d{1,9})([.)])(?=\s|$)|()([-+=])(?=[-+=\s]|$))")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z_ -]*[A-Za-z]")


def line(text: str) -> str:
    """The text on one line, without control characters; runs of white space become one space."""
    shown = "".join(" " if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") else one for one in text)
    return re.sub(r"\s+", " ", shown).strip()


def plain(text: str) -> str:
    """Markdown for exactly this text, on one line; safe at the start of a line and in a table's cell.

    >>> print(plain("[[Secret]] #tag %% 5 < 6"))
    \\[\\[Secret\\]\\] \\#tag \\%\\% 5 \\< 6
    """
    escaped = _inside(line(text))
    return _OPENING.sub(lambda found: f"{found[1] or ''}\\{found[2] or found[4]}", escaped)


def sentence(text: str) -> str:
    """An error message, in which what stands between backticks is shown as code.

    >>> print(sentence("There is no field `sparsty` in [[it]]."))
    There is no field `sparsty` in \\[\\[it\\]\\].
    """
    parts = line(text).split("`")
    if len(parts) % 2 == 0 or any(not code.strip() or re.search("%%|-->|<!--", code) for code in parts[1::2]):
        return plain(text)
    shown = [f"`{part}`" if at % 2 else _inside(part) for at, part in enumerate(parts)]
    return (plain(parts[0]) + " " * parts[0].endswith(" ") if parts[0] else "") + "".join(shown[1:])


def _inside(text: str) -> str:
    return _SPECIAL.sub(lambda found: "\\" + found[0], text)


def link(path: str) -> str:
    """A wikilink to a note (its path without `.md`), shown by its name; as text where no link can name it."""
    name = path.rpartition("/")[2]
    if re.search(r"[\[\]#^|\\%<>`$]|==", path) or line(path) != path or not name:
        return plain(path)
    return f"[[{path}|{name}]]" if name != path else f"[[{name}]]"


def reference(value: str) -> str:
    """A wikilink as its author wrote it, to a note, a heading or a block, without its alias; as text if it is none.

    >>> reference("[[Claims#^few-neurons|this one]]")
    '[[Claims#^few-neurons]]'
    """
    found = re.fullmatch(r"\[\[([^\[\]#^|\\%<>`$]*(?:#\^?[^\[\]#^|\\%<>`$]+)?)(?:\|[^\[\]]*)?\]\]", line(value))
    return f"[[{found[1]}]]" if found and found[1] and "==" not in found[1] else plain(value)


def quoted(text: str) -> str:
    """A text as a YAML scalar for a property; Obsidian makes a link of any property that holds `[[`."""
    inert = re.sub(r"([\[\]])(?=\1)", r"\1 ", line(text))
    return inert if _PLAIN.fullmatch(inert) and inert.lower() not in _WORDS else json.dumps(inert, ensure_ascii=False)


_WORDS = {"true", "false", "null", "yes", "no", "on", "off"}
