"""The result note: what it shows, what stays, and that it says the same twice."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from vaultlab.errors import NoteError, RunError
from vaultlab.notes import page as pages
from vaultlab.notes.answer import Quoted
from vaultlab.notes.note import Problem
from vaultlab.notes.page import Page, PageError, Shown, accept, read, touched, write
from vaultlab.notes.properties import head
from vaultlab.result import Check, Judgement, Metric, Point, Quote, Said

EVIL = "[[Secret]] ![[x]] #tag %% == $x$ | <b> ` --> ^id [^1]\n```\n> y"
PAGE = Page(
    id="pentagon",
    title="Five features fit in two dimensions",
    experiment="superposition",
    note="Notes/My note",
    ask="a1",
    key="k1",
    card="c1",
    model="smollm2-135m",
    verdict="supported",
    fields={"features": 5, "sparsity": 0.95, "text": "a ``` \u2028 [[x]]\n```\n\U0001f600", "heads": [["L1H2"], ["x"]]},
    summary="n=5 m=2 S=0.95",
    metrics=(
        Metric("represented", 5.0, headline=True),
        Metric("dimensionality", (0.391, 0.4, 0.407), headline=True),
        Metric("loss", 1.2345678e-5, "nats", interval=(1e-5, 2e-5), null=0.5, n=16, headline=True),
    ),
    checks=(Check("Σ D ≤ rank W", 1e-7, 1e-5, "holds for every W"),),
    judgements=(
        Judgement("represented = 5 in 90% of seeds", "supported", "16 of 16 seeds"),
        Judgement("max of dimensionality < 1", "supported", "max 0.407", "Empty."),
    ),
    figures={
        "weights": Shown("figures/pentagon.weights.svg", "The five weight vectors form a pentagon"),
        "gram_matrix": Shown("figures/pentagon.gram_matrix.svg", "WWᵀ | its squares"),
    },
    provenance={
        "device": "cpu",
        "dtype": "float32",
        "torch": "2.13.0",
        "version": 3,
        "texts": {"text": {"name": "[[x]]", "sha256": "cd" * 32}},
    },
)


def test_the_card() -> None:
    text = write(PAGE, None)
    card = text[head(text).body_at :].split("\n## ")[0].strip().split("\n")
    assert [line.rstrip() for line in card] == [
        "> [!success] Five features fit in two dimensions",
        "> ![The five weight vectors form a pentagon](figures/pentagon.weights.svg)",
        "> represented 16 of 16 seeds ✓ · max dimensionality 0.407 ✓",
        "> n=5 m=2 S=0.95 · cpu float32 · [[Notes/My note|My note]]",
        "",
        "^result",
    ]


@pytest.mark.parametrize(
    ("tests", "shown"),
    [
        ("[[Map#^few|here]]", "tests [[Map#^few]]"),
        ("[[Map#More features]]", "tests [[Map#More features]]"),
        ("[[a]] ![[b]]", r"tests \[\[a\]\] !\[\[b\]\]"),
        ("[[a%%b]]", r"tests \[\[a\%\%b\]\]"),
    ],
)
def test_the_card_links_to_the_claim_that_it_tests(tests: str, shown: str) -> None:
    assert f"[[Notes/My note|My note]] · {shown}\n" in write(replace(PAGE, tests=tests), None)


def test_what_it_ran_on_is_read_back() -> None:
    stored = read(write(PAGE, None))
    assert stored is not None
    assert stored.ran == {"device": "cpu", "dtype": "float32", "torch": "2.13.0"}


@pytest.mark.parametrize(
    ("verdict", "kind"), [("supported", "success"), ("refuted", "failure"), ("undecided", "question"), (None, "note")]
)
def test_the_card_is_of_the_verdicts_kind(verdict: object, kind: str) -> None:
    assert f"\n> [!{kind}] Five" in write(replace(PAGE, verdict=verdict), None)  # type: ignore[arg-type]


def test_what_rises_means_is_said_where_a_claim_speaks_of_it() -> None:
    assert "*rises*" not in write(PAGE, None)
    trend = Judgement("loss rises with n", "supported", "1 at n 0, 2 at n 9; 3 of 3 pairs rise, none falls")
    text = write(replace(PAGE, judgements=(trend,)), None)
    claims = text.partition("## Claims")[2].partition("\n## ")[0]
    assert claims.index("^claims") < claims.index("A metric *rises* where its last value lies above its first")
    assert "> loss 1 at n 0, 2 at n 9; 3 of 3 pairs rise, none falls ✓" in text


def test_without_claims_the_card_shows_the_headlines_and_a_failed_check_is_told() -> None:
    text = write(replace(PAGE, judgements=(), verdict=None, checks=(Check("identity", float("nan"), 1e-5),)), None)
    assert "> represented 5 · dimensionality 0.391 to 0.407 (3 values) · loss 1.235 × 10⁻⁵ nats" in text
    assert "A check failed, so these numbers cannot be relied on: identity" in text
    assert "| ✗ | identity | NaN | 1 × 10⁻⁵ |" in text
    assert read(text) is not None
    assert read(text).failed_checks == ("identity",)  # type: ignore[union-attr]


def test_without_a_summary_the_line_of_parameters_is_made_of_the_fields() -> None:
    text = write(replace(PAGE, summary="", fields={"features": 5, "hidden": 2}, provenance={}), None)
    assert "\n> features=5 hidden=2 · [[Notes/My note|My note]]\n" in text


def test_every_section_has_its_block_id() -> None:
    text = write(PAGE, None)
    for anchor in ("result", "figure", "metrics", "checks", "claims", "provenance", "history"):
        assert text.count(f"\n\n^{anchor}\n") == 1
    for anchor in ("figure-weights", "figure-gram-matrix"):
        assert text.count(f" ^{anchor}\n") == 1


def test_figures_are_relative_markdown_images_with_words() -> None:
    text = write(PAGE, None)
    assert "- ![WWᵀ / its squares](figures/pentagon.gram_matrix.svg) ^figure-gram-matrix\n" in text


def test_the_tables() -> None:
    text = write(PAGE, None)
    assert "| loss | 1.235 × 10⁻⁵ | nats | 1 × 10⁻⁵ to 2 × 10⁻⁵ | 0.5 | 16 |" in text
    assert "| ✓ | Σ D ≤ rank W | 1 × 10⁻⁷ | 1 × 10⁻⁵ | holds for every W |" in text
    kinds = [token.type for token in MarkdownIt("commonmark").enable("table").parse(text[head(text).body_at :])]
    assert kinds.count("table_open") == 2


def test_a_sweeps_table() -> None:
    points = tuple(
        Point({"sparsity": s, "model": "a|b"}, "k", False, (Metric("loss", s / 7),), (Check("c", s, 0.5),))
        for s in (0.1, 0.9)
    )
    text = write(replace(PAGE, metrics=(), points=points), None)
    assert "| sparsity | model | loss | checks |\n| ---: | ---: | ---: | --- |\n" in text
    assert "| 0.1 | a\\|b | 0.01429 | ✓ |\n| 0.9 | a\\|b | 0.1286 | ✗ |" in text
    assert "first run · 2 points" in text


def a_point(at: int, **fields: object) -> Point:
    loss = Metric("loss", math.nan if at == 7 else at / 7, headline=True)
    metrics = (loss, Metric("norm", (0.5, 1.0 + at)), Metric("[[x]]|y", 1.0))
    return Point({"n": at, **fields}, "k", False, metrics, (Check("c", 0.0, 1.0),))


def test_a_long_sweep_says_its_extremes_and_folds_its_points() -> None:
    text = write(replace(PAGE, metrics=(), points=tuple(a_point(at, model=EVIL) for at in range(1000))), None)
    evil = r"\[\[x\]\]\|y"
    lines = text.partition("## Metrics\n\n")[2].splitlines()
    assert lines[:2] == ["| metric | lowest | at | highest | at |", "| --- | ---: | --- | ---: | --- |"]
    assert lines[2].startswith("| loss | 0 | n 0, model ")
    assert " | 142.7 | n 999, model " in lines[2]
    assert lines[3].startswith("| norm | 0.5 | n 0, model ")
    assert lines[4].startswith(f"| {evil} | 1 | n 0, ")
    assert lines[5:7] == ["", "^metrics"] or lines[5:6] == ["^metrics"]
    assert (
        "\n\n> [!abstract]- All 1000 points\n> | n | model | loss | checks |\n> | ---: | ---: | ---: | --- |\n" in text
    )
    assert text.count("\n> | ") == 1002
    assert "\n\n^points\n" in text
    assert len(write(replace(PAGE, metrics=(), points=tuple(map(a_point, range(1000)))), None)) < 60_000
    kinds = [token.type for token in MarkdownIt("commonmark").enable("table").parse(text[head(text).body_at :])]
    assert kinds.count("table_open") == 3
    assert kinds.count("tr_open") == 4 + 1001 + 2


def test_a_sweep_of_thousands_shows_the_first() -> None:
    text = write(replace(PAGE, metrics=(), points=tuple(map(a_point, range(4000)))), None)
    assert "> [!abstract]- The first 1000 of 4000 points" in text
    assert "| norm | 0.5 | n 0 | 4000 | n 3999 |" in text
    short = write(replace(PAGE, metrics=(), points=tuple(map(a_point, range(30)))), None)
    assert "[!abstract]" not in short
    assert "| 29 | 4.143 | 0.5 to 30 (2 values) |" in short


def test_what_is_read_back_is_what_was_written() -> None:
    stored = read(write(replace(PAGE, accepted=("loss < 1: refuted",)), None))
    assert stored is not None
    assert (stored.ask, stored.key, stored.card, stored.status) == ("a1", "k1", "c1", "done")
    assert (stored.note, stored.model, stored.verdict) == ("Notes/My note", "smollm2-135m", "supported")
    assert stored.fields == PAGE.fields
    assert stored.metrics == {"represented": 5, "loss": 1.235e-5}
    assert stored.version == 3
    assert stored.texts == {"text": "cd" * 32}
    assert stored.figures == ("figures/pentagon.weights.svg", "figures/pentagon.gram_matrix.svg")
    assert stored.claims == {one.claim: one.verdict for one in PAGE.judgements}
    assert stored.accepted == ("loss < 1: refuted",)
    assert pages.stored_from_json(json.loads(json.dumps(pages.stored_to_json(stored)))) == stored


@pytest.mark.parametrize("key", ["0123", "1e5", "true", "~"])
def test_a_hash_stays_a_text(key: str) -> None:
    stored = read(write(replace(PAGE, key=key, ask=key), None))
    assert stored is not None
    assert (stored.key, stored.ask) == (key, key)


def test_the_same_page_gives_the_same_bytes() -> None:
    text = write(PAGE, None)
    assert write(PAGE, None) == text
    assert write(PAGE, text) == text
    assert write(PAGE, text.replace("\n", "\r\n")) == text


def test_touched_means_more_than_white_space() -> None:
    text = write(PAGE, None)
    assert not touched(text)
    assert not touched(text.replace("\n", "\r\n"))
    assert not touched(text.replace("  \n", "\n\n"))
    assert not touched(text.replace("lab_model", "mine: 1\nlab_model"))
    assert touched(text.replace("Five features fit", "Six features fit"))
    assert touched(text + "a remark\n")


def test_a_file_that_is_not_ours_is_not_read_and_not_written_over() -> None:
    for text in ("", "# My note\n", "---\ntitle: x\n---\n", "---\nlab_ask: [a\n---\n", "---\nlab_ask: 5\n---\n"):
        assert read(text) is None
        with pytest.raises(NoteError, match="yours"):
            write(PAGE, text)


def test_what_others_added_stays() -> None:
    text = write(PAGE, None)
    mine = 'tags: [a, "b"]   # mine\nlab_partner: Bob\ncssclasses:\n    - wide\n    - "x: y"\nlong: |\n  one\n\n  two\n'
    with_mine = text.replace("---\n\n>", f"{mine}---\n\n>", 1)
    again = write(replace(PAGE, key="k2", ask="a2", metrics=(Metric("other", 1.0, headline=True),)), with_mine)
    assert f"\n{mine}---\n" in again
    assert "lab_other: 1\n" in again
    assert "lab_represented" not in again
    assert write(replace(PAGE, key="k2", ask="a2", metrics=(Metric("other", 1.0, headline=True),)), again) == again


def test_at_most_three_headlines_and_none_that_is_no_number() -> None:
    shown = tuple(Metric(name, float(at), headline=True) for at, name in enumerate("abcd"))
    stored = read(write(replace(PAGE, metrics=(Metric("x", float("nan"), headline=True), *shown)), None))
    assert stored is not None
    assert list(stored.metrics) == ["a", "b", "c"]


def test_the_history_tells_what_changed() -> None:
    text = write(PAGE, None)
    second = replace(PAGE, key="k2", fields={**PAGE.fields, "sparsity": 0.9, "seed": 3, "heads": None})
    del second.fields["heads"]  # type: ignore[attr-defined]
    text = write(second, text)
    assert "\n- **2** sparsity 0.95 → 0.9, heads by default, seed 3 · represented 5, " in text
    assert "\n- **1** first run · represented 5, " in text
    newer = replace(second, key="k3", provenance={"version": 4})
    assert "\n- **3** version 3 → 4 of the experiment · " in write(newer, text)
    assert "another model or text" in write(replace(second, key="k3"), text)


def test_the_same_key_is_the_same_run() -> None:
    text = write(PAGE, None)
    reworded = write(replace(PAGE, card="c2", title="Other"), text)
    assert reworded.count("- **") == 1


def test_the_last_twenty_runs() -> None:
    text = write(PAGE, None)
    for number in range(2, 30):
        text = write(replace(PAGE, key=f"k{number}", fields={"seed": number}), text)
    runs = [line for line in text.split("\n") if line.startswith("- **")]
    assert len(runs) == 20
    assert runs[0].startswith("- **29** seed 28 → 29 · ")
    assert runs[-1].startswith("- **10** ")


def test_an_error_stands_above_the_last_good_result_which_stays() -> None:
    good = write(PAGE, None)
    error = PageError("There is no field `sparsty`.", "Did you mean `sparsity`?", 12)
    failed = replace(PAGE, ask="a2", key="", status="failed", verdict=None, figures={}, metrics=(), error=error)
    text = write(failed, good)
    body = text[head(text).body_at :]
    assert body.startswith("\n> [!error] Five features fit in two dimensions\n> There is no field `sparsty`.")
    assert "line 12 of its block in [[Notes/My note|My note]]\n\n^error\n\n> [!success]" in body
    assert body.endswith(good[head(good).body_at :].lstrip("\n"))
    stored = read(text)
    assert stored is not None
    assert (stored.status, stored.ask, stored.key, stored.verdict) == ("failed", "a2", "k1", "supported")
    assert stored.metrics == {"represented": 5, "loss": 1.235e-5}
    assert stored.fields == PAGE.fields
    assert not touched(text)
    assert write(failed, text) == text
    other = write(replace(failed, error=PageError("Another.")), text)
    assert other.count("[!error]") == 1
    assert "[!error]" not in write(PAGE, other)
    assert write(PAGE, other) == good


def test_a_first_error_creates_the_note_and_is_its_card() -> None:
    failed = replace(PAGE, key="", status="failed", verdict=None, error=PageError("Broken."))
    text = write(failed, None)
    assert "> [!error] Five features fit in two dimensions\n> Broken.\n" in text
    assert text.endswith("\n^result\n")
    stored = read(text)
    assert stored is not None
    assert (stored.status, stored.key, stored.fields) == ("failed", "", {})
    assert write(PAGE, text) == write(PAGE, None)
    assert write(failed, text) == text


def test_strings_that_are_not_ours_make_nothing() -> None:
    page = replace(
        PAGE,
        title=EVIL,
        summary=EVIL,
        model=EVIL,
        metrics=(Metric("loss", 1.0, unit=EVIL),),
        checks=(Check(EVIL, 1.0, 2.0, EVIL),),
        judgements=(Judgement(EVIL, "supported", EVIL, EVIL),),
        figures={"w": Shown("figures/a.svg", EVIL)},
        provenance={"device": EVIL, "x": {EVIL: EVIL}},
        fields={"text": EVIL},
    )
    failed = replace(page, key="", error=PageError(EVIL, EVIL, 3))
    for text in (write(page, None), write(failed, None), write(failed, write(page, None))):
        assert read(text) is not None
        assert not touched(text)
        body = text[head(text).body_at :]
        plain = body.split("```yaml")[0] + body.split("\n```\n")[-1]
        plain = re.sub(r"\\.", "", plain)
        for construct in ("![[x", "#tag", " $x", "<b>", " -->", " [^1]", " %%", "\n> y"):
            assert construct not in plain, construct
        # In the page's own YAML every text stands within quotation marks on one line.
        kinds = [token.type for token in MarkdownIt("commonmark").parse(text[head(text).body_at :])]
        assert kinds.count("fence") <= 1
        assert "html_block" not in kinds
        assert "[[Secret]]" not in json.dumps(head(text).values)
        assert "[[Secret]]" not in plain


def test_accepting_records_the_findings_and_leaves_the_body() -> None:
    refuted = replace(PAGE, verdict="refuted", judgements=(*PAGE.judgements, Judgement("loss: a < 1", "refuted", "3")))
    text = write(refuted, None).replace("---\n\n>", "mine: 1\n---\n\n>", 1)
    accepted = accept(text)
    stored = read(accepted)
    assert stored is not None
    assert stored.accepted == ("loss: a < 1: refuted",)
    assert stored.claims["loss: a < 1"] == "refuted"
    assert accepted[head(accepted).body_at :] == text[head(text).body_at :]
    assert "\nmine: 1\n---\n" in accepted
    assert accept(accepted) == accepted
    assert write(replace(refuted, accepted=stored.accepted), accepted) == accepted
    with pytest.raises(NoteError):
        accept("# mine\n")


def test_the_owners_templates_come_first_and_are_kept_in_bounds(tmp_path: Path) -> None:
    (tmp_path / "result.md.j2").write_text("{{ title }} in their own words\n\n^result\n")
    assert "\nFive features fit in two dimensions in their own words\n" in write(PAGE, None, tmp_path)
    for broken, words in (
        ("{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}", "more than"),
        ("{{ nothing }}", "does not work"),
        ("{{ title.__class__.__mro__ }}", "does not work"),
        ("{{ 1 // 0 }}", "does not work"),
        ("{% for one in range(10**40) %}x{% endfor %}", "does not work"),
        ("{% if %}", "does not work"),
        ("{{ history.append(1) }}", "does not work"),
    ):
        other = tmp_path / str(len(broken))
        other.mkdir()
        (other / "result.md.j2").write_text(broken)
        with pytest.raises(RunError, match=words):
            write(PAGE, None, other)


def test_problems() -> None:
    text = pages.problems({"A/b.md": [Problem(3, "`x` is [[wrong]].", "Mend it.")], "c.md": [Problem(1, "Open.")]})
    assert head(text).values == {"title": "Problems", "lab_problems": 2}
    assert "## [[A/b|b]]\n\n- line 3: `x` is \\[\\[wrong\\]\\]. Mend it.\n\n## [[c]]\n" in text
    assert pages.is_problems(text.encode())
    assert not pages.is_problems(b"# My problems\n")
    assert not pages.is_problems(b"\xff\xfe")
    assert read(text) is None


def test_what_a_model_wrote_is_folded_and_makes_no_link_tag_or_fence() -> None:
    evil = (f"go on: {EVIL}", f"```\n# {EVIL} ![[y]]\n> [!note]")
    said = (Said("strength −1 [[x]]", (evil, ("", ""))), Said("0", ()))
    text = write(replace(PAGE, said=said), None)
    lines = text.partition("## Texts\n\n")[2].partition("\n\n## ")[0].split("\n")
    assert lines[0] == "> [!quote]- strength −1 \\[\\[x\\]\\]"
    assert lines[1].startswith("> - go on: ")
    assert " **\\`\\`\\` \\# " in lines[1]
    assert not re.search(r"(?<!\\)\[\[|(?<!\\)`", lines[1])
    assert lines[2:] == ["> - **⟨⟩**", "", "> [!quote]- 0"]
    assert "## Texts" not in write(PAGE, None)


def test_places_make_no_link_tag_or_fence_of_what_they_quote() -> None:
    evil = Quoted(Quote("text", 0, f"x {EVIL} " * 9, "**", "[[y]]", "#tag"), note="Notes/My note")
    blank = Quoted(Quote("text", 0, "", "", ""), source="[[topic]]")
    text = write(replace(PAGE, quotes=(evil, blank)), None)
    places = text.partition("## Places\n\n")[2].partition("\n\n^places")[0].split("\n")
    assert len(places) == 2
    assert places[0].startswith("- \\#tag: …")
    assert places[0].endswith("**\\*\\*** → \\[\\[y\\]\\] · [[Notes/My note|My note]]")
    assert len(places[0]) < 300
    assert places[1] == "- **⟨⟩** · \\[\\[topic\\]\\]"
    assert "## Places" not in write(PAGE, None)
