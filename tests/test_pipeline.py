"""The journey of a vault, with a plain function in the worker's place."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from vaultlab.catalogue import Catalogue, Entry
from vaultlab.pipeline import Outcome, Pipeline, Selection
from vaultlab.result import Answer, Ask, Check, Failure, Figure, Metric, Point, Quote, Refusal, Result
from vaultlab.stress import trial
from vaultlab.survey import Survey, survey
from vaultlab.vault.journal import Journal

DOUBLE = Entry(
    name="double",
    version=1,
    page="Twice a number.",
    schema={
        "properties": {
            "number": {"type": "number", "default": 1},
            "slack": {"type": "number", "default": 0.5, "stress": [0, 1]},
            "text": {"type": "string", "kind": "text", "default": "python-help"},
            "words": {"anyOf": [{"type": "string"}, {"type": "array"}], "kind": "list", "default": ["one", "two"]},
            "model": {"type": "string", "kind": "model", "default": "tiny"},
        }
    },
    metrics=(
        {"name": "twice", "help": "", "unit": "", "range": (0, 9), "headline": True, "forced": {}},
        {"name": "parts", "help": "", "unit": "", "range": (0, 9), "headline": False, "forced": {}},
    ),
    figures={"plot": "a line"},
    examples=({"id": "two", "title": "Two", "fields": {"number": 1}, "expect": ["twice = 2"], "texts": {}},),
    nonsense={"what": "no number", "about": "doubling", "fields": {"slack": -1}},
)
NOTE = """---
tags: [experiment]
---
A claim.

```vaultlab
double: two
number: 1
text: hello
expect:
  - twice = 2
```

The end.
"""
LOCKED = {"tiny": {"name": "tiny", "sha256": "f" * 64, "family": "llama", "dtype": "float32"}}


def answer(ask: Ask, *_: object) -> Answer:
    """What a worker would say, computed on the spot."""
    number = float(
        {one.name: one.value for one in ask.defaults}.get("number", 1) | 0
        if "number" not in ask.fields
        else ask.fields["number"]
    )
    metrics = (Metric("twice", 2 * number, headline=True), Metric("parts", (number, number)))
    figure = Figure("svg", f"<svg>{number}</svg>".encode(), "a line")
    key = f"key-{number}-{ask.texts['text'].sha256[:6]}"
    points = tuple(
        Point(fields, f"{key}-{at}", False, (Metric("twice", _twice(number, fields), headline=True),), ())
        for at, fields in enumerate(ask.points)
    )
    return Result(
        id=ask.id,
        key=key,
        cached=False,
        metrics=() if points else metrics,
        checks=() if points else (Check("halves", 0.0, 1e-9),),
        figures={"plot": figure},
        summary=f"number={number}",
        provenance={
            "device": "cpu",
            "models": LOCKED,
            "texts": {"text": {"name": "", "sha256": ask.texts["text"].sha256}},
        },
        points=points,
    )


def _twice(number: float, fields: Mapping[str, object]) -> float:
    """Of too much slack one too many, of nonsense always four."""
    slack = float(fields.get("slack", 0.5))
    return 4.0 if slack < 0 else 2 * float(fields.get("number", number)) + (slack > 0.7)


class Bed:
    """A vault in a folder, and what a worker was asked."""

    def __init__(self, root: Path, owner: Path) -> None:
        self.root, self.owner = root, owner
        self.catalogue = Catalogue({"double": DOUBLE})
        self.asked: list[Ask] = []
        self.answer = answer

    def look(self) -> Survey:
        return survey(self.root, self.owner, self.catalogue)

    def ask(self, ask: Ask, progress: object) -> Answer:
        self.asked.append(ask)
        return self.answer(ask, progress)

    def render(self, **selection: object) -> list[Outcome]:
        self.asked.clear()
        later = lambda: 2e9 * 2  # noqa: E731  # every note has been quiet for decades
        return list(Pipeline(self.look, self.ask, now=later, sleep=lambda s: None).render(Selection(**selection)))

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        return path

    def read(self, name: str) -> str:
        return (self.root / name).read_bytes().decode()

    def page(self, id: str = "two") -> str:
        return self.read(f"vaultlab/{id}.md")

    def everything(self) -> dict[str, tuple[bytes, int]]:
        files = [path for path in self.root.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.root)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    def states(self) -> dict[str | None, str]:
        return {item.id: item.state for item in self.look().items}


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bed:
    for name in ("STATE", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    (tmp_path / "vault").mkdir()
    return Bed(tmp_path / "vault", tmp_path / "config")


def test_a_claim_answers_for_itself(bed: Bed) -> None:
    bed.write("Note.md", NOTE)
    (outcome,) = bed.render()
    assert outcome.verdict == "supported"
    assert outcome.wrote
    assert bed.read("Note.md") == NOTE.replace("```\n\nThe end", "```\n\n![[vaultlab/two#^result]]\n\nThe end")
    assert (bed.root / "vaultlab/figures/two.plot.svg").read_bytes() == b"<svg>1.0</svg>"
    assert "[!success]" in bed.page()
    assert "lab_verdict: supported" in bed.page()
    assert bed.states() == {"two": "fresh"}


def test_those_behind_that_read_the_same_text_are_named_with_a_block(bed: Bed) -> None:
    for id, text in (("a", "hello"), ("b", "else"), ("c", "hello"), ("d", "hello")):
        note = NOTE.replace("double: two", f"double: {id}")
        bed.write(f"{id}.md", note.replace("text: hello", f"text: {text}\nwords: [{text}]"))
    bed.render(force=True)
    assert {ask.id: [one.id for one in ask.beside] for ask in bed.asked} == {
        "a": ["c", "d"],
        "b": [],
        "c": ["d"],
        "d": [],
    }
    (beside, _), own = bed.asked[0].beside, bed.asked[0].texts["text"]
    assert beside.texts["text"] == replace(own, parts=()), "the worker has the words from the block itself"
    assert beside.force


def test_a_second_render_asks_nothing_and_changes_no_byte_and_no_time(bed: Bed) -> None:
    bed.write("Note.md", NOTE)
    bed.render()
    before = bed.everything()
    assert bed.render() == []
    assert bed.asked == []
    assert bed.everything() == before


def test_force_runs_every_block_once(bed: Bed) -> None:
    bed.write("Note.md", NOTE)
    assert len(bed.render(force=True)) == 1
    assert len(bed.render(force=True)) == 1
    assert bed.asked[0].force


def test_an_edited_field_runs_again_and_the_embed_stays_one(bed: Bed) -> None:
    bed.write("Note.md", NOTE)
    bed.render()
    bed.write("Note.md", bed.read("Note.md").replace("number: 1", "number: 3"))
    (item,) = bed.look().items
    assert (item.state, item.why) == ("stale", "number 1 → 3")
    (outcome,) = bed.render()
    assert outcome.verdict == "refuted"
    assert bed.read("Note.md").count("![[") == 1
    assert (bed.root / "vaultlab/figures/two.plot.svg").read_bytes() == b"<svg>3.0</svg>"


def test_an_edited_claim_is_judged_anew_under_the_same_ask(bed: Bed) -> None:
    bed.write("Note.md", NOTE)
    bed.render()
    bed.write("Note.md", bed.read("Note.md").replace("twice = 2", "twice > 5"))
    assert bed.states() == {"two": "reworded"}
    (outcome,) = bed.render()
    assert outcome.verdict == "refuted"
    assert bed.states() == {"two": "fresh"}


def test_a_deleted_embed_stays_deleted_until_its_block_is_run_by_hand(bed: Bed) -> None:
    bed.write("Note.md", NOTE)
    bed.render()
    bed.write("Note.md", NOTE.replace("number: 1", "number: 2"))
    bed.render()
    assert "![[" not in bed.read("Note.md")
    bed.render(id="two")
    assert bed.read("Note.md").count("![[vaultlab/two#^result]]") == 1


def test_a_refusal_is_shown_on_its_line_and_not_asked_for_again(bed: Bed) -> None:
    bed.write("Note.md", NOTE)
    bed.render()
    good = bed.page()
    bed.write("Note.md", bed.read("Note.md").replace("number: 1", "number: 99"))
    bed.answer = lambda ask, _: Refusal(ask.id, "`number` is 99.", "It goes up to 9.", field="number")
    (outcome,) = bed.render()
    assert outcome.problem == "`number` is 99."
    assert outcome.line == 8
    assert "line 3 of its block in [[Note]]" in bed.page()
    assert "[!error]" in bed.page()
    assert good.split("^result")[1].split("^history")[0] in bed.page(), "the last good result stays"
    before = bed.everything()
    assert bed.render() == []
    assert bed.everything() == before
    bed.answer = answer
    bed.write("Note.md", bed.read("Note.md").replace("number: 99", "number: 1"))
    bed.render()
    assert "[!error]" not in bed.page()
    assert bed.states() == {"two": "fresh"}


def test_a_refusal_is_asked_for_again_once_the_owner_has_changed_the_limits(bed: Bed) -> None:
    bed.write("Note.md", NOTE)
    bed.answer = lambda ask, _: Refusal(ask.id, "It would take about 9 GB.", "The owner sets the limit.")
    bed.render()
    assert bed.states() == {"two": "failed"}
    bed.answer = answer
    assert bed.render() == []
    bed.owner.mkdir(parents=True, exist_ok=True)
    (bed.owner / "config.toml").write_text("[limits]\ntime_s = 7200\n")
    (outcome,) = bed.render()
    assert outcome.verdict == "supported"


def test_lines_above_a_block_leave_its_error_as_it_is(bed: Bed) -> None:
    bed.write("Note.md", NOTE.replace("number: 1", "number: 1\nnumber: 2"))
    bed.render()
    page = bed.page()
    bed.write("Note.md", bed.read("Note.md").replace("A claim.", "A claim.\n\nAnd another line."))
    (outcome,) = bed.render()
    assert (outcome.line, outcome.wrote, bed.page()) == (11, False, page)


def test_a_block_without_an_id_is_told_once_although_our_embeds_move_it(bed: Bed) -> None:
    block = NOTE.partition("A claim.")[2]
    bed.write("Note.md", NOTE + block.replace("double: two", "double: No_Id"))
    outcomes = bed.render()
    assert [outcome.item.id for outcome in outcomes] == ["two", None]
    assert "- line 20: `No_Id` is no id." in bed.read("vaultlab/problems.md")


def test_blocks_without_an_id_that_ask_the_same_get_an_embed_each(bed: Bed) -> None:
    block = NOTE.partition("A claim.")[2].replace("double: two", "experiment: double\ntitle: Twins")
    bed.write("Note.md", NOTE + block + block)
    assert [outcome.wrote for outcome in bed.render()] == [True] * 3
    embeds = [line for line in bed.read("Note.md").splitlines() if line.startswith("![[")]
    assert embeds[:2] == ["![[vaultlab/two#^result]]", "![[vaultlab/twins-double#^result]]"]
    assert len(embeds) == 3
    before = bed.everything()
    assert bed.render() == []
    assert bed.everything() == before


def test_our_own_embed_in_a_note_is_not_its_author_typing(bed: Bed) -> None:
    path = bed.write("Note.md", NOTE + NOTE.partition("A claim.")[2].replace("double: two", "double: other"))
    clock = [path.stat().st_mtime + 60]

    def asked(ask: Ask, progress: object) -> Answer:
        clock[0] = path.stat().st_mtime + 60 * ("![[" not in bed.read("Note.md"))
        return answer(ask)

    def sleep(seconds: float) -> None:
        pytest.fail("it waited for itself")

    list(Pipeline(bed.look, asked, now=lambda: clock[0], sleep=sleep).render(Selection()))
    assert bed.read("Note.md").count("![[") == 2


def test_what_the_machine_could_not_do_is_tried_again(bed: Bed) -> None:
    bed.write("Note.md", NOTE)
    bed.answer = lambda ask, _: Failure(ask.id, "environment", "The worker died.", "Run it again.")
    bed.render()
    assert "The worker died" in bed.page()
    bed.answer = answer
    (outcome,) = bed.render()
    assert outcome.verdict == "supported"
    assert "[!error]" not in bed.page()
    assert bed.read("Note.md").count("![[") == 1


def test_a_good_result_that_could_not_be_run_anew_is_tried_again_too(bed: Bed) -> None:
    bed.write("Note.md", NOTE)
    bed.render()
    bed.write("Note.md", bed.read("Note.md").replace("double: two", "double: two\ntitle: Another"))
    bed.answer = lambda ask, _: Failure(ask.id, "environment", "The model is not here.", "Pull it.")
    bed.render()
    assert bed.states() == {"two": "stale"}
    bed.answer = answer
    bed.render()
    assert bed.states() == {"two": "fresh"}
    assert "[!error]" not in bed.page()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("double: two", "duoble: two"), "There is no experiment `duoble`. Did you mean `double`?"),
        (("twice = 2", "twise = 2"), "twice"),
        (("text: hello", 'text: "[[Nowhere]]"'), "There is no note `Nowhere`"),
        (("text: hello", "text: file:../../etc/passwd"), "No text file is called"),
        (("text: hello", "text: folder:Nope"), "There is no folder `Nope`"),
        (("text: hello", 'text: hello\nwords: "[[#Nowhere]]"'), "no heading `Nowhere`"),
        (("text: hello", "text: hello\nwords: []"), "This list is empty. Write its words"),
        (("text: hello", "text: hello\nwords: python-help"), "`python-help` is no list but a text."),
        (("text: hello", "text: hello\nsweep: {words: [a, b]}"), "`words` is a list"),
        (("number: 1", "number: 1\nnumber: 2"), "number"),
        (("number: 1", "number: !!python/object:os.system 1"), "tag"),
    ],
)
def test_what_is_written_wrong_is_said_in_the_result_note(bed: Bed, wrong: tuple[str, str], says: str) -> None:
    bed.write("Note.md", NOTE.replace(*wrong) + NOTE.partition("A claim.")[2].replace("double: two", "double: other"))
    outcomes = {outcome.item.id: outcome for outcome in bed.render()}
    assert says in f"{outcomes['two'].problem} {outcomes['two'].hint}"
    assert "[!error]" in bed.page()
    assert outcomes["other"].verdict == "supported", "the other blocks still run"
    before = bed.everything()
    bed.render()
    assert bed.everything() == before


def test_an_authors_note_at_a_result_path_is_never_overwritten(bed: Bed) -> None:
    bed.write("Note.md", NOTE)
    mine = bed.write("vaultlab/two.md", "my own words\n")
    (outcome,) = bed.render()
    assert "is a note of yours, no result" in outcome.problem
    assert mine.read_text() == "my own words\n"


def test_a_result_note_that_somebody_changed_is_kept_before_it_is_written_anew(bed: Bed) -> None:
    bed.write("Note.md", NOTE)
    bed.render()
    bed.write(
        "vaultlab/two.md",
        bed.page().replace("^result", "^result\n\nA thought of mine.").replace("---\ntitle", "---\nmood: good\ntitle"),
    )
    bed.write("Note.md", bed.read("Note.md").replace("number: 1", "number: 2"))
    bed.render()
    (kept,) = (bed.root / "vaultlab/kept").iterdir()
    assert "A thought of mine." in kept.read_text()
    assert "mood: good" in bed.page()


def test_the_same_name_means_the_same_weights(bed: Bed) -> None:
    bed.write("Note.md", NOTE)
    bed.render()
    assert "f" * 64 in bed.read(".vaultlab/models.lock")
    other = {"tiny": {**LOCKED["tiny"], "sha256": "0" * 64}}
    bed.answer = lambda ask, p: replace(answer(ask, p), provenance={"models": other})
    (outcome,) = bed.render(id="two", force=True)
    assert "not the model that this vault's results are of" in outcome.problem
    assert "not the model that this vault's results are of" in bed.page()
    assert "f" * 64 in bed.read(".vaultlab/models.lock")


def test_a_new_version_and_a_changed_collection_run_only_when_asked(bed: Bed) -> None:
    bed.owner.mkdir()
    (bed.owner / "config.toml").write_text('search = ["Texts/*"]\n')
    bed.write("Texts/One.md", "one\n")
    bed.write("Note.md", NOTE.replace("text: hello", "text: folder:Texts"))
    bed.render()
    bed.write("Texts/One.md", "another one\n")
    assert bed.states() == {"two": "reread"}
    assert bed.render() == []
    assert len(bed.render(id="two")) == 1
    assert bed.states() == {"two": "fresh"}
    bed.catalogue = Catalogue({"double": replace(DOUBLE, version=2)})
    assert bed.states() == {"two": "outdated"}
    assert bed.render() == []
    assert len(bed.render(id="two")) == 1
    assert bed.states() == {"two": "fresh"}


def test_this_note_as_a_text_is_not_changed_by_our_own_embed(bed: Bed) -> None:
    bed.write("Note.md", NOTE.replace("text: hello", "text: this note"))
    bed.render()
    assert bed.states() == {"two": "fresh"}
    bed.write("Note.md", bed.read("Note.md").replace("The end.", "The very end."))
    assert bed.states() == {"two": "stale"}


WORDS = """# Good
- fine
- [[Nice]]

# All
- ![[#Good]]
- ![[Words#Bad]]

# Bad
- poor

# Round
![[#Turn]]

# Turn
![[Words#Round]]
"""


def test_a_list_in_a_note_is_read_item_by_item_and_what_changes_in_it_makes_stale(bed: Bed) -> None:
    bed.write("Words.md", WORDS)
    bed.write("Note.md", NOTE.replace("text: hello", 'text: hello\nwords: "[[Words#All]]"'))
    bed.render()
    assert bed.asked[0].texts["words"].parts == (("Words.md", "fine"), ("Words.md", "Nice"), ("Words.md", "poor"))
    assert bed.states() == {"two": "fresh"}
    bed.write("Words.md", WORDS.replace("- fine", "Other prose.\n\n* fine ^id"))
    assert bed.states() == {"two": "fresh"}, "the items are what they were"
    bed.write("Words.md", WORDS.replace("- poor", "- poor\n- bad"))
    assert bed.states() == {"two": "stale"}
    bed.write("Words.md", WORDS.replace("- poor", "- fine poor"))
    assert bed.states() == {"two": "stale"}


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("[fine, two words]", ("fine", "two words")),
        ('["[[Words#Bad]]", vault, "- less"]', ("poor", "vault", "- less")),
        ("[[Words#Bad]]", ("poor",)),
        ("|\n  - fine\n\n  2. poor\n  -\n  plain", ("fine", "poor", "plain")),
        ("fine, and so on", ("fine, and so on",)),
    ],
)
def test_a_list_may_be_written_into_the_block(bed: Bed, written: str, means: tuple[str, ...]) -> None:
    bed.write("Words.md", WORDS)
    bed.write("Note.md", NOTE.replace("text: hello", f"text: hello\nwords: {written}"))
    bed.render()
    assert tuple(item for _, item in bed.asked[0].texts["words"].parts) == means


def test_a_list_that_embeds_itself_or_a_private_note_is_told_on_its_line(bed: Bed) -> None:
    bed.write("Words.md", WORDS)
    bed.write("Diary.md", "---\npublish: false\n---\n- secret\n")
    bed.write("Open.md", "- ![[Diary]]\n")
    for named, says in (("[[Words#Round]]", "`Round` embeds itself"), ("[[Open]]", "`Diary` is private")):
        bed.write("Note.md", NOTE.replace("text: hello", f'text: hello\nwords: "{named}"'))
        [problem] = bed.look().items[0].problems
        assert says in problem.message
        assert (problem.line, problem.field) == (10, "words")


def test_a_private_note_is_quoted_by_no_other(bed: Bed) -> None:
    bed.write("Diary.md", "---\npublish: false\n---\nsecret\n")
    bed.write("Note.md", NOTE.replace("text: hello", 'text: "[[Diary]]"'))
    (outcome,) = bed.render()
    assert "private" in outcome.problem
    assert bed.asked == []


def test_what_is_quoted_links_to_its_note_and_no_private_note_is(bed: Bed) -> None:
    bed.owner.mkdir()
    (bed.owner / "config.toml").write_text('search = ["**"]\n')
    bed.write("Ideas/Birds.md", "a bird flew")
    bed.write("private/Diary.md", "a secret walked")
    bed.write("Draft.md", "---\ndraft: true\n---\na sketch ran")
    bed.write("Note.md", NOTE.replace("text: hello", "text: vault"))

    def quoting(ask: Ask, *_: object) -> Answer:
        found = answer(ask)
        assert isinstance(found, Result)
        parts = enumerate(ask.texts["text"].parts)
        return replace(
            found, quotes=tuple(Quote("text", at, *text.split()[:2], "next", f"key {at}") for at, (_, text) in parts)
        )

    bed.answer = quoting
    bed.render()
    places = bed.page().partition("## Places")[2].partition("^places")[0].split("\n")
    assert [line for line in places if line] == [
        "- key 0: a **bird** → next · [[Ideas/Birds|Birds]]",
        "- key 1: A **claim.** → next · [[Note]]",
    ]
    for private in ("secret", "Diary", "sketch", "Draft"):
        assert private not in bed.page()


@pytest.mark.parametrize(("text", "where"), [("python-help", " · assert"), ("hello world", "")])
def test_a_text_that_is_no_note_is_quoted_without_a_link(bed: Bed, text: str, where: str) -> None:
    bed.answer = lambda ask, *_: replace(answer(ask), quotes=(Quote("text", 0, "so", "it", "is"),))
    bed.write("Note.md", NOTE.replace("text: hello", f"text: {text}"))
    bed.render()
    assert f"- so **it** → is{where}\n" in bed.page()


def test_a_model_that_the_owner_has_not_allowed_is_not_asked_for(bed: Bed) -> None:
    bed.owner.mkdir()
    (bed.owner / "config.toml").write_text('models = ["other"]\n')
    bed.write("Note.md", NOTE)
    bed.write("Path.md", NOTE.replace("double: two", "double: path\nmodel: ../weights.bin"))
    said = {outcome.item.id: outcome.problem for outcome in bed.render()}
    assert "not one that this machine's owner allows" in said["two"]
    assert "a note may not name a path" in said["path"]
    assert bed.asked == []


LARGE = NOTE.replace("number: 1", 'sweep: {number: "1..201"}').replace("twice = 2", "twice <= 402")


def test_a_large_sweep_runs_only_when_asked_for(bed: Bed) -> None:
    bed.write("Note.md", LARGE)
    (item,) = bed.look().items
    assert (item.state, item.why) == ("large", "its sweep has 201 points, and more than 200 run only when asked for")
    assert bed.render() == []
    assert not (bed.root / "vaultlab/two.md").exists()
    (outcome,) = bed.render(id="two")
    assert outcome.verdict == "supported"
    assert bed.asked[0].limits.points == 201
    assert bed.states() == {"two": "fresh"}
    # Judged anew it is by itself, with the limit as it stands: what is stored does not count against it.
    bed.write("Note.md", LARGE.replace("402", "403"))
    assert [one.verdict for one in bed.render()] == ["supported"]
    assert bed.asked[0].limits.points == 200
    bed.write("Note.md", LARGE.replace("1..201", "2..202"))
    assert bed.states() == {"two": "large"}
    (bed.owner).mkdir(exist_ok=True)
    (bed.owner / "config.toml").write_text("[limits]\npoints = 201\n")
    assert bed.states() == {"two": "stale"}


def test_manual_frozen_and_notes_that_take_no_part(bed: Bed) -> None:
    bed.write("Note.md", NOTE)
    bed.render()
    frozen = bed.read("Note.md").replace("number: 1", "number: 2\nrun: frozen")
    bed.write("Note.md", frozen)
    assert bed.render() == []
    assert bed.render(id="two") == []
    assert len(bed.render(id="two", force=True)) == 1
    bed.write("Note.md", NOTE.replace("tags: [experiment]", "tags: [other]"))
    seen = bed.look()
    assert seen.items == ()
    assert seen.idle == {"Note.md": 1}


def test_a_sweep_becomes_a_table(bed: Bed) -> None:
    bed.write(
        "Note.md",
        NOTE.replace("number: 1\n", "sweep: {number: '1..3'}\n").replace("twice = 2", "twice rises with number"),
    )
    (outcome,) = bed.render()
    assert [point["number"] for point in bed.asked[0].points] == [1, 2, 3]
    assert outcome.verdict == "supported"
    assert bed.states() == {"two": "fresh"}


def test_cascade_block_note_vault(bed: Bed) -> None:
    bed.write(".vaultlab/config.toml", "[defaults]\nnumber = 7\nabsent = 1\n")
    bed.write("Note.md", NOTE.replace("number: 1\n", "").replace("tags:", "vaultlab-number: 4\ntags:"))
    bed.render()
    ((default,),) = (ask.defaults for ask in bed.asked)
    assert (default.name, default.value) == ("number", 4)
    assert "vaultlab-number" in default.origin


if "VAULTLAB_WILD_NOTES" in os.environ:
    WILD = sorted(Path(os.environ["VAULTLAB_WILD_NOTES"]).glob("*.md"))

    @pytest.mark.parametrize("source", WILD, ids=[path.stem for path in WILD])
    def test_a_note_in_the_wild_gains_one_line_and_loses_no_byte(bed: Bed, source: Path) -> None:
        wild = source.read_bytes()
        (bed.root / "Untouched.md").write_bytes(wild)
        head, _, body = wild.decode().partition("tags:\n")
        block = NOTE.partition("A claim.\n\n")[2]
        bed.write("Wild.md", f"{head}tags:\n  - experiment\n{body}\n\n{block}")
        bed.render()
        assert (bed.root / "Untouched.md").read_bytes() == wild
        text = bed.read("Wild.md")
        assert text.replace("![[vaultlab/two#^result]]\n\n", "") == f"{head}tags:\n  - experiment\n{body}\n\n{block}"
        assert text.count("![[vaultlab/two#^result]]") == 1


# -- what happens while a block runs ---------------------------------------------------------------------------


def test_a_note_edited_during_its_run_keeps_every_byte_and_runs_anew(bed: Bed) -> None:
    bed.write("Note.md", NOTE)

    def edits(ask: Ask, p: object) -> Answer:
        if len(bed.asked) == 1:
            bed.write("Note.md", NOTE.replace("number: 1", "number: 2").replace("The end.", "The end!"))
        return answer(ask, p)

    bed.answer = edits
    outcomes = bed.render()
    assert len(outcomes) == 2
    assert "The end!" in bed.read("Note.md")
    assert bed.read("Note.md").count("![[") == 1
    assert bed.states() == {"two": "fresh"}


def test_a_note_renamed_during_its_run_gets_its_embed_in_the_new_place(bed: Bed) -> None:
    path = bed.write("Note.md", NOTE)

    def renames(ask: Ask, p: object) -> Answer:
        if path.exists():
            path.rename(bed.root / "Other.md")
        return answer(ask, p)

    bed.answer = renames
    bed.render()
    assert bed.read("Other.md").count("![[vaultlab/two#^result]]") == 1
    assert bed.states() == {"two": "fresh"}


def test_a_note_deleted_during_its_run_is_not_brought_back(bed: Bed) -> None:
    path = bed.write("Note.md", NOTE)

    def deletes(ask: Ask, p: object) -> Answer:
        path.unlink()
        return answer(ask, p)

    bed.answer = deletes
    (outcome,) = bed.render()
    assert "no longer in" in outcome.problem
    assert not path.exists()
    assert not (bed.root / "vaultlab/two.md").exists()


def test_a_note_being_typed_is_left_alone_until_it_is_quiet(bed: Bed) -> None:
    path = bed.write("Note.md", NOTE)
    clock = [path.stat().st_mtime + 1]
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        assert "![[" not in bed.read("Note.md")
        waited.append(seconds)
        clock[0] += seconds

    list(Pipeline(bed.look, bed.ask, now=lambda: clock[0], sleep=sleep).render(Selection()))
    assert 3.5 < sum(waited) < 5
    assert bed.read("Note.md").count("![[") == 1


_CALLS = ("write", "pwrite", "replace", "rename", "unlink", "fsync", "ftruncate", "mkdir", "open")


def _render_until(bed: Bed, calls: int) -> bool:
    """Render in a child that ends, as by kill -9, before its so-manieth call that writes. Whether it came that far."""
    child = os.fork()
    if child == 0:
        left = [calls]

        def counted(name: str) -> None:
            real = getattr(os, name)

            def call(*args: object, **kwargs: object) -> object:
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)
                return real(*args, **kwargs)

            setattr(os, name, call)

        for name in _CALLS:
            counted(name)
        try:
            bed.render()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("every", [23, pytest.param(1, marks=[pytest.mark.long, pytest.mark.timeout(1200)])])
def test_killed_between_any_two_writes_the_next_render_makes_it_whole(bed: Bed, tmp_path: Path, every: int) -> None:
    two = NOTE + NOTE.partition("A claim.")[2].replace("double: two", "double: other")
    bed.write("Note.md", two)
    bed.render()
    expected = {name: content for name, (content, _) in bed.everything().items()}
    for calls in range(0, 10_000, every):
        root = tmp_path / f"vault-{calls}"
        root.mkdir()
        killed = Bed(root, bed.owner)
        killed.write("Note.md", two)
        died = _render_until(killed, calls)
        text = killed.read("Note.md")
        assert (
            text.replace("![[vaultlab/two#^result]]\n\n", "").replace("![[vaultlab/other#^result]]\n\n", "") == two
            or died
        )
        Journal(root).recover("vaultlab")
        killed.render()
        found = {name: content for name, (content, _) in killed.everything().items()}
        assert found == expected, f"killed before call {calls}"
        if not died:
            assert calls > 30
            return
    raise AssertionError("it never came to an end")


# -- stress

STRESSED = NOTE.replace("  - twice = 2\n", "  - twice = 2\n  - twice > 1\n")


def stress(bed: Bed, runs: int = 40) -> Outcome:
    seen = bed.look()
    (item,) = seen.items
    tried = trial(DOUBLE, item.fields, tuple(item.block.sweep), runs)
    bed.asked.clear()
    later = lambda: 2e9 * 2  # noqa: E731
    return Pipeline(bed.look, bed.ask, now=later, sleep=lambda s: None).one(seen, item, Selection(), tried)


def test_stress_says_where_a_claim_breaks_and_what_holds_for_nonsense_too(bed: Bed) -> None:
    bed.write("Note.md", STRESSED)
    outcome = stress(bed)
    assert [len(ask.points) for ask in bed.asked] == [0, 45]
    assert not bed.asked[1].figures
    assert outcome.stress is not None
    first, second = outcome.stress.claims
    assert (first.held, first.where, first.nonsense) == (29, "where slack ≥ 0.7", 0)
    assert first.counts == "11 of 11 there, 0 of 29 elsewhere"
    assert (second.held, second.where, second.nonsense) == (40, "", 5)
    assert outcome.stress.empty == (second,)
    page = bed.page()
    said = "twice holds in 29 of 40 variations, breaks where slack ≥ 0.7 · 1 other holds in all 40"
    assert f"> Under stress: {said}  \n" in page
    assert "> ✗ also holds for no number, so it says nothing about doubling: twice" in page
    section = page.partition("## Stress\n")[2].partition("\n## ")[0]
    assert "40 variations: slack from 0 to 1." in section
    assert "| twice = 2 | 29 of 40 | where slack ≥ 0.7 (11 of 11 there, 0 of 29 elsewhere) | 0 of 5 |" in section
    assert "\n^stress\n" in section
    assert "![[vaultlab/two#^result]]" in bed.read("Note.md")


def test_stress_stays_until_the_block_asks_something_else(bed: Bed) -> None:
    bed.write("Note.md", STRESSED)
    stress(bed)
    before = bed.everything()
    assert bed.render() == []
    bed.render(id="two")
    assert bed.everything() == before
    # A claim that goes takes its line with it; the others were tried on the same ask.
    bed.write("Note.md", NOTE)
    bed.render()
    assert "Under stress: twice holds in 29 of 40" in bed.page()
    assert "says nothing" not in bed.page()
    bed.answer = lambda ask, *_: Failure(ask.id, "environment", "No memory.")
    bed.render(force=True)
    assert "No memory" in bed.page()
    assert "Under stress" in bed.page()
    bed.answer = answer
    bed.render()
    assert "Under stress: twice holds in 29 of 40" in bed.page()
    bed.write("Note.md", NOTE.replace("number: 1", "number: 1.0001"))
    bed.render()
    assert "tress" not in bed.page()


def test_stress_of_a_sweep_judges_each_variation_over_its_points(bed: Bed) -> None:
    swept = NOTE.replace("number: 1\n", "sweep: {number: [1, 2, 3]}\n").replace("twice = 2", "twice rises with number")
    bed.write("Note.md", swept.replace("rises with number\n", "rises with number\n  - max of twice < 6.5\n"))
    outcome = stress(bed)
    assert outcome.problem == ""
    assert [len(ask.points) for ask in bed.asked] == [3, 135]
    assert outcome.stress is not None
    rises, most = outcome.stress.claims
    assert (rises.held, rises.nonsense) == (40, 0)  # nonsense is 4 everywhere: it does not rise
    assert (most.held, most.where, most.nonsense) == (29, "where slack ≥ 0.7", 5)


def test_what_the_variations_come_to_is_no_failure_of_the_block(bed: Bed) -> None:
    bed.write("Note.md", STRESSED)
    bed.render()
    before = bed.everything()
    refused = Refusal("two", "`slack` is −1, which is out of range.", "It takes a number from 0.")
    bed.answer = lambda ask, *_: refused if ask.points else answer(ask)
    outcome = stress(bed)
    assert outcome.problem == "A variation cannot be run: `slack` is −1, which is out of range."
    assert bed.everything() == before


def test_a_note_whose_record_somebody_changed_has_no_stress(bed: Bed) -> None:
    bed.write("Note.md", STRESSED)
    stress(bed)
    path = bed.root / "vaultlab/two.md"
    path.write_text(path.read_text().replace('"runs": 40', '"runs": "many"'))
    bed.render(id="two")
    assert "## Stress" not in bed.page()
