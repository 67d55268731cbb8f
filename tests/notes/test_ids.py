"""Which block gets which id, over a whole vault."""

import pytest

from vaultlab.notes.ids import Named, assign, slug
from vaultlab.notes.parse import parse


def note(*blocks: str, part: bool = True) -> str:
    head = "---\ntags: experiment\n---\n" if part else ""
    return head + "\n".join(f"```vaultlab\n{block}\n```" if not block.startswith("!") else block for block in blocks)


def named(owners: dict[str, str] | None = None, **notes: str) -> list[Named]:
    return list(assign({f"{path}.md": parse(text) for path, text in notes.items()}, owners or {}))


def ids(owners: dict[str, str] | None = None, **notes: str) -> list[str | None]:
    return [one.id for one in named(owners, **notes)]


def test_a_written_id() -> None:
    assert ids(a=note("superposition: pentagon", "experiment: attention\nid: 007")) == ["pentagon", "007"]


def test_notes_that_take_no_part_claim_nothing() -> None:
    assert ids(a=note("superposition: x", part=False), b=note("superposition: x")) == ["x"]


@pytest.mark.parametrize(
    ("id", "better"),
    [
        ("Pentagon", "`pentagon`"),
        ("a b", "`a-b`"),
        ("a_b", "`a-b`"),
        ("-a", "`a`"),
        ("é", "`e`"),
        ("con", "`con-1`"),
        ("lpt1", "`lpt1-1`"),
        ("problems", "`problems-1`"),
        ("a" * 65, "`" + "a" * 58 + "`"),
        ("a/../b", "`a-b`"),
        ("日本", "at most 64"),
    ],
)
def test_ids_that_cannot_be(id: str, better: str) -> None:
    (one,) = named(a=note(f"features: 5\nexperiment: superposition\nid: {id}"))
    assert one.id is None
    assert one.problem is not None
    assert one.problem.line == 7
    assert better in one.problem.hint


def test_the_longest_id() -> None:
    assert ids(a=note(f"superposition: {'a' * 64}")) == ["a" * 64]


def test_the_id_of_the_first_embed_of_ours_before_the_next_block() -> None:
    text = note(
        "superposition:\ntitle: A",
        "![[other]] ![[image.png]]",
        "![[vaultlab/figures/pentagon.weights.svg|400]] ![[vaultlab/second]]",
        "superposition:\ntitle: B",
        "![[vaultlab/third#^result]]",
    )
    assert ids(a=text) == ["pentagon", "third"]


def test_an_embed_above_the_block_or_behind_the_next_is_not_its_own() -> None:
    text = note("![[vaultlab/above]]", "superposition:\ntitle: A", "superposition: b", "![[vaultlab/below]]")
    assert ids(a=text) == ["a-superposition", "b"]


def test_from_the_title() -> None:
    assert ids(a=note("kv_memory:\ntitle: Fünf Merkmale!")) == ["funf-merkmale-kv-memory"]


def test_without_a_title_or_where_it_is_taken_the_path_tells_them_apart() -> None:
    first = ids(a=note("superposition:"), b=note("superposition:"))
    assert len(set(first)) == 2
    assert all(one and len(one) == len("superposition-abcdef") for one in first)
    titled = "superposition:\ntitle: A"
    found = ids(a=note(titled, titled, titled), b=note(titled))
    assert found[0] == "a-superposition"
    assert len(set(found)) == 4
    assert all(one and one.startswith("a-superposition-") for one in found[1:])


def test_a_title_yields_to_a_written_id_wherever_that_stands() -> None:
    found = ids(a=note("superposition:\ntitle: A"), z=note("superposition: a-superposition"))
    assert found[1] == "a-superposition"
    assert found[0] != found[1]


def test_its_own_result_does_not_make_a_derived_id_taken() -> None:
    text = note("superposition:\ntitle: A")
    assert ids({"a-superposition": "a.md"}, a=text) == ["a-superposition"]
    assert ids({"a-superposition": "gone.md"}, a=text) == ["a-superposition"]
    assert ids({"a-superposition": "b.md"}, a=text, b=note("superposition: x"))[0] != "a-superposition"


def test_a_long_title_leaves_room() -> None:
    (one,) = ids(a=note(f"superposition:\ntitle: {'word ' * 40}"))
    assert one is not None
    assert len(one) <= 64


@pytest.mark.parametrize("owner", ["a", "b"])
def test_of_two_with_one_id_the_results_owner_keeps_it_and_the_other_alone_has_an_error(owner: str) -> None:
    text = note("superposition: x")
    by_path = {one.path: one for one in named({"x": f"{owner}.md"}, a=text, b=text)}
    newcomer = by_path["b.md" if owner == "a" else "a.md"]
    assert by_path[f"{owner}.md"].id == "x"
    assert by_path[f"{owner}.md"].problem is None
    assert newcomer.id is None
    assert newcomer.problem is not None
    assert newcomer.problem.line == 5
    assert f"`{owner}.md`" in newcomer.problem.message
    assert "`superposition: x-2`" in newcomer.problem.hint


def test_the_free_id_is_free() -> None:
    text = note("superposition: x")
    found = named({"x": "a.md"}, a=text, b=text, c=text, d=note("superposition: x-2"))
    hints = [one.problem.hint for one in found if one.problem]
    assert ["x-3" in hints[0], "x-4" in hints[1]] == [True, True]


def test_a_copied_block_without_an_id_has_an_error_too() -> None:
    text = note("superposition:", "![[vaultlab/x#^result]]")
    found = named({"x": "b.md"}, a=text, b=text)
    assert [one.id for one in found] == [None, "x"]


def test_within_one_note_the_first_keeps_it() -> None:
    found = named(a=note("superposition: x", "superposition: x"))
    assert [one.id for one in found] == ["x", None]
    assert found[1].problem is not None
    assert "line 4" in found[1].problem.message


def test_embed_none_needs_an_id() -> None:
    (one,) = named(a=note("superposition:\ntitle: A\nembed: none"))
    assert one.problem is not None
    assert "`superposition: a-superposition`" in one.problem.hint
    assert ids(a=note("superposition: x\nembed: none")) == ["x"]


def test_a_block_that_nothing_names_stays_without_a_second_problem() -> None:
    (one,) = named(a=note("- nothing"))
    assert (one.id, one.problem) == (None, None)


def test_another_folder() -> None:
    notes = {"a.md": parse(note("superposition:\ntitle: A", "![[out/lab/x]] ![[vaultlab/y]]"))}
    assert [one.id for one in assign(notes, {}, "out/lab")] == ["x"]


def test_slug() -> None:
    assert slug("--Ünder_score & more--") == "under-score-more"
    assert slug("日本") == ""
