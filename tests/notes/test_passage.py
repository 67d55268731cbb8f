"""What a text field means, and the passages that references name."""

import pytest

from vaultlab.errors import NoteError
from vaultlab.notes.parse import parse
from vaultlab.notes.passage import Reference, classify, items, nearest, passage, prose
from vaultlab.notes.splice import apply, splice

NOTE = """---
tags: experiment
---
# Claims

First paragraph,
on two lines.

Second. %%private%%

%%
a long remark
%%

- one
- two
  - deeper ^deep

^list

## Geometry: [[Pentagon]]

```python
%%time
```

> A quote.

^quote

# Other

A marked paragraph. ^marked

## Geometry: [[Pentagon]]

The second geometry.
"""


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("this note", Reference("this note")),
        (" This Note ", Reference("this note")),
        ("this note is about", Reference("literal")),
        ("[[Note]]", Reference("note", "Note")),
        ("[[Folder/Note#Heading|shown]]", Reference("note", "Folder/Note", "Heading")),
        ("[[Note#A#B]]", Reference("note", "Note", "A#B")),
        ("[[#Heading]]", Reference("note", "", "Heading")),
        ("[[Note#^block]]", Reference("note", "Note", "^block")),
        ("^block-1", Reference("note", "", "^block-1")),
        ("^not a block", Reference("literal")),
        ("folder:Papers/2024", Reference("folder", "Papers/2024")),
        ("vault", Reference("vault")),
        ("python-help", Reference("python-help")),
        ("file:books", Reference("file", "books")),
        ("[[A]] and [[B]]", Reference("literal")),
        ("The capital of France is", Reference("literal")),
        ("", Reference("literal")),
    ],
)
def test_what_a_text_means(typed: str, meant: Reference) -> None:
    assert classify(typed) == meant


def said(fragment: str) -> str:
    return passage(prose(NOTE, parse(NOTE)), fragment)


def test_under_a_heading() -> None:
    assert said("Claims") == "First paragraph,\non two lines.\n\nSecond.\n\none\ntwo\ndeeper\n\nA quote."
    assert said("Other") == "A marked paragraph.\n\nThe second geometry."


def test_headings_are_compared_as_links_write_them() -> None:
    assert said("geometry Pentagon").endswith("A quote.")
    assert said("Other#Geometry Pentagon") == "The second geometry."


def test_a_block_by_its_id() -> None:
    assert said("^marked") == "A marked paragraph."
    assert said("^deep") == "deeper"
    assert said("^list") == "one\ntwo\ndeeper"
    assert said("^quote") == "A quote."


@pytest.mark.parametrize(
    ("fragment", "hint"),
    [("Claim", "`Claims`"), ("^lis", "`^list`"), ("Claims#Other", ""), ("nothing alike at all", "")],
)
def test_what_leads_nowhere_names_the_nearest(fragment: str, hint: str) -> None:
    with pytest.raises(NoteError, match="There is no") as caught:
        said(fragment)
    assert hint in caught.value.hint
    assert bool(hint) == bool(caught.value.hint)


def test_a_heading_with_nothing_under_it() -> None:
    with pytest.raises(NoteError, match="no text under"):
        passage("# A\n# B\n\ntext", "A")


def test_prose_leaves_out_properties_comments_and_what_is_ours() -> None:
    text = prose(NOTE, parse(NOTE))
    assert "experiment" not in text
    assert "private" not in text
    assert "remark" not in text
    assert "%%time" in text
    assert "# Claims" in text


@pytest.mark.parametrize(
    "text",
    [
        "text\n\n{}\n\nmore\n",
        "text\n{}\nmore",
        "{}",
        "> quote\n{}\n> more\n",
        "- item\n{}\n- item\n",
        "- item\n{}\ntext",
        "- a\n{}\n  more of it\n",
        "\ufeff{}\n---\n",
    ],
)
def test_the_splice_does_not_change_the_prose(text: str) -> None:
    prefix = {">": "> ", "-": "  "}.get(text[0], "")
    block = "```vaultlab\nattention: ours\ntext: this note\n```"
    text = text.format("\n".join(prefix + line for line in block.split("\n")))
    for ends in ("\n", "\r\n"):
        before = text.replace("\n", ends)
        edit = splice(before, parse(before).blocks[0], "ours")
        assert edit is not None
        after = apply(before, edit)
        assert prose(after, parse(after)) == prose(before, parse(before))
        assert "ours" not in prose(after, parse(after))


def test_anothers_embed_is_the_authors_prose() -> None:
    text = "![[Other note]]\n\n![[vaultlab/x#^result]]\n\nsee ![[vaultlab/x]]\n"
    assert prose(text, parse(text)) == "![[Other note]]\n\nsee ![[vaultlab/x]]"


LISTS = """# Every way
Said of it.
- **good** ^a
* ==nice==
+ [[Fine|fine]]
1. one
2) two
- [ ] task
- [x] done
-

> - quoted,
>   on two lines
>   - [[Within]]

> [!note]
> - in callout

- Colours
  - red %%not this%%
  - blue

    in two paragraphs
- `a_b` \\*c <b>d</b> [shown](address) [ok] ~~e~~
- a line\\
  of its own

^last

## Embedded
- before
- ![[More#Here|so]]

![[Other#^id]]
![[Whole]]

## None
A paragraph - with a dash.

## Empty
-
- %%remark%%
"""


def test_the_items_of_every_kind_of_list() -> None:
    text = prose(LISTS, parse(LISTS))
    assert items(text, "Every way") == (
        *("good", "nice", "fine", "one", "two", "task", "done"),
        *("Within", "in callout", "red", "blue\n\nin two paragraphs"),
        *("a_b *c d shown [ok] e", "a line\nof its own"),
        *("before", Reference("note", "More", "Here"), Reference("note", "Other", "^id"), Reference("note", "Whole")),
    )
    assert items(text, "^a") == ("good",)
    assert items(text, "^last")[0] == "red"
    assert items(text)[-1] == Reference("note", "Whole")
    assert items(text.replace("\n", "\r\n")) == items(text)


@pytest.mark.parametrize(
    ("fragment", "says"), [("None", "no list under `None`"), ("Empty", "under `Empty` is empty"), ("Emty", "`Empty`")]
)
def test_where_there_is_no_list_the_mend_is_said(fragment: str, says: str) -> None:
    with pytest.raises(NoteError) as caught:
        items(prose(LISTS, parse(LISTS)), fragment)
    assert says in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.hint


def test_nearest() -> None:
    assert nearest("sparsty", ["sparsity", "seeds"]) == "sparsity"
    assert nearest("GEOMETRY", ["Geometry"]) == "Geometry"
    assert nearest("zzz", ["sparsity"]) is None
