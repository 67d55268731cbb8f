"""The YAML that most blocks and frontmatter are made of, read twenty times as fast as by a YAML parser.

`name: value` lines, with plain or quoted scalars and lists of them. Anything else is left to the parser; what is read
here is read exactly as the parser would, which the tests hold it to.
"""

import re

from vaultlab.notes.scalar import Node, scalar

# No sign that YAML gives a meaning, and no `: ` or ` #`. An item of a `[…]` holds no comma either.
_ITEM = r"(?:[\w.]|[-+](?=[0-9.]))(?:[\w./%+=<>()-]| (?! *$))*"
_FLOW = rf"{_ITEM}(?:, *{_ITEM})*"
_PLAIN = r"(?:[\w.]|[-+](?=[0-9.]))(?:[\w./%+=<>()*^~|&!?,;'\"@-]|:(?=\S)| (?! *$))*"
_QUOTED = r"\"[^\"\\\t\n]*\"|'[^'\n\t]*'"
_ENTRY = re.compile(
    rf"(?P<key>[A-Za-z_][\w-]*):(?: +(?:(?P<plain>{_PLAIN})|(?P<quoted>{_QUOTED})|\[(?P<flow>{_FLOW})\]))? *"
)
_DASH = re.compile(rf"(?P<indent> *)- +(?:(?P<plain>{_PLAIN})|(?P<quoted>{_QUOTED})) *")
_PRINTABLE = re.compile(r"[\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd]*")

# Looking ahead for the end of a run of spaces takes its square.
_LONGEST = 500


def read_simple(text: str, first_line: int) -> Node | None:
    """The document, or None where it is not simple enough."""
    if not _PRINTABLE.fullmatch(text) or max(map(len, text.split("\n"))) > _LONGEST:
        return None
    entries: dict[str, tuple[Node, Node]] = {}
    listed: str | None = None
    indent = ""
    for line, typed in enumerate(text.split("\n"), first_line):
        if not typed or typed.startswith("#"):
            continue
        if found := _ENTRY.fullmatch(typed):
            key = found["key"]
            if key in entries:
                return None
            entries[key] = Node(scalar(key), line, key, plain=True), _value(found, line)
            listed = key if found["plain"] is found["quoted"] is found["flow"] is None else None
        elif listed and (found := _DASH.fullmatch(typed)):
            name, at = entries[listed]
            if not at.items:
                indent, at = found["indent"], Node([], line)
            elif indent != found["indent"]:
                return None
            item = _value(found, line)
            entries[listed] = name, Node([*at.value, item.value], at.line, items=(*at.items, item))
        else:
            return None
    if not entries:
        return None
    values = {name: value.value for name, (_, value) in entries.items()}
    return Node(values, next(iter(entries.values()))[0].line, entries=entries)


def _value(found: re.Match[str], line: int) -> Node:
    said = found.groupdict()
    if said["quoted"] is not None:
        return Node(said["quoted"][1:-1], line, said["quoted"][1:-1])
    if said.get("flow") is not None:
        items = tuple(_scalar(item.strip(), line) for item in said["flow"].split(","))
        return Node([item.value for item in items], line, items=items)
    return _scalar(said["plain"] or "", line)


def _scalar(raw: str, line: int) -> Node:
    return Node(scalar(raw), line, raw, plain=True)
