"""Concept direction: planted concepts, folds that share nothing, the layer that knows nothing, what is refused."""

import string
from dataclasses import replace

import pytest
import torch

from tests.tiny import tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments import concept_direction
from vaultlab.experiments.concept_direction import EXPERIMENT, Spec, compute, directions, draw, measure, reads, verify
from vaultlab.models.templates import filled, read_last
from vaultlab.models.trace import Site, trace
from vaultlab.plots.style import render
from vaultlab.result import Text

LETTERS = string.ascii_letters[:48]
ONE, OTHER = tuple(LETTERS[0::2]), tuple(LETTERS[1::2])
TEMPLATES = ("the cat saw {}.", "Paris is {}.", "she said {}.", "one, two, {}.")
TEXT = "The cat sat on the mat, and the dog saw it."
ENOUGH = "enough words for a verdict"


def a_bench(model, spec, **more):
    texts = {}
    for name in ("positive", "negative", "templates", "text"):
        value = getattr(spec, name)
        texts[name] = Text(name, "0", tuple(("", one) for one in ((value,) if isinstance(value, str) else value)))
    return Bench(torch.device("cpu"), torch.float32, lambda name: model, texts, **more)


def a_spec(**fields):
    return Spec(**{"model": "tiny", "positive": ONE, "negative": OTHER, "templates": TEMPLATES, "text": TEXT, **fields})


def run(model, **fields):
    spec = a_spec(**fields)
    return spec, compute(spec, a_bench(model, spec))


def value(spec, out, name):
    return next(metric for metric in measure(spec, out) if metric.name == name)


def failed(spec, out):
    return [check.name for check in verify(spec, out) if not check.ok]


@pytest.fixture(autouse=True)
def few_shuffles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concept_direction, "NULLS", 5)


def with_concept(size=6.0):
    """A model whose embedding has the concept in it: the letters of one side lie further along a direction."""
    model = tiny_model("llama")
    u = torch.nn.functional.normalize(torch.randn(48, generator=torch.Generator().manual_seed(1)), dim=0)
    W_E = model.net.get_input_embeddings().weight
    with torch.no_grad():
        for letters, sign in ((ONE, 1), (OTHER, -1)):
            for letter in letters:
                W_E[model.tokens(f"so {letter}").ids[-1]] += sign * size / 2 * u
    return model, u.double()


@pytest.mark.parametrize("method", ["mean", "lat", "probe"])
def test_a_planted_concept_is_found_in_words_and_templates_never_seen(method: str) -> None:
    model, u = with_concept()
    spec, out = run(model, method=method, templates=("the cat saw {}", "Paris is {}", "she said {}", "one, {}"))
    assert float(torch.cosine_similarity(out.vectors[0], u, dim=0)) > 0.95
    assert float(out.vectors[0].norm()) == pytest.approx(6, rel=0.1)
    assert value(spec, out, "first_auroc").value == 1
    assert value(spec, out, "auroc").value == 1
    assert failed(spec, out) == [ENOUGH]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post"])
def test_the_checks_hold_in_every_family_at_every_site(family: str, site: str) -> None:
    model = tiny_model(family)
    if site == "resid_mid" and "parallel" in model.shape.flags:
        with pytest.raises(NoteError, match="resid_mid"):
            run(model, site=site)
        return
    spec, out = run(model, site=site)
    assert failed(spec, out) == [ENOUGH]
    assert out.vectors.shape == (3, 48)
    given = directions(spec, out)
    assert (given.model, given.site, given.layers, given.chosen) == ("tiny", site, (0, 1, 2), out.chosen)
    assert given.vectors.norm(dim=-1).tolist() == pytest.approx(out.vectors.norm(dim=-1).tolist())


@pytest.mark.parametrize("method", ["mean", "lat", "probe"])
def test_before_the_first_layer_the_last_token_knows_nothing_of_the_word(method: str) -> None:
    spec, out = run(tiny_model("llama"), method=method)
    assert value(spec, out, "first_auroc").value == 0.5
    assert not out.vectors[0].any()
    assert value(spec, out, "auroc").value != 0.5
    spec, out = run(tiny_model("llama"), method=method, templates=("the cat saw {}", "Paris is {}", "one {}"))
    assert out.vectors[0].any(), "where the word itself is read, it does"


def test_no_word_and_no_template_is_in_two_folds_and_what_goes_together_is_in_one() -> None:
    model, spec = tiny_model("llama"), a_spec()
    bench = a_bench(model, spec)
    folds, _, facts = concept_direction._read(spec, bench, model, [Site("resid_pre", 0)])
    words = [set(fold.words) for fold in folds]
    assert set.union(*words) == {*ONE, *OTHER}
    assert sum(map(len, words)) == len(LETTERS)
    assert [fold.x.shape[2] for fold in folds] == [2, 1, 1]
    for fold in folds:
        mine = [ONE.index(word) for word, side in zip(fold.words, fold.side, strict=True) if side]
        others = [OTHER.index(word) for word, side in zip(fold.words, fold.side, strict=True) if not side]
        assert mine == others, "the k-th words of both lists"
    assert facts["prompts"] == 24 * 2 + 10 * 1 + 14 * 1


@pytest.mark.parametrize(("count", "parts"), [(1, (1, 1, 1)), (2, (1, 1, 1)), (3, (1, 1, 1)), (8, (4, 2, 2))])
def test_templates_fall_into_folds(count: int, parts: tuple[int, ...]) -> None:
    cut = concept_direction._cut_templates([str(at) for at in range(count)])
    assert tuple(map(len, cut)) == parts
    if count > 2:
        assert len({one for part in cut for one in part}) == sum(parts)


def test_exchanged_lists_turn_the_direction_round() -> None:
    model = tiny_model("llama")
    spec, out = run(model)
    _, turned = run(model, positive=OTHER, negative=ONE)
    assert torch.allclose(turned.vectors, -out.vectors, atol=1e-9)
    assert value(spec, turned, "auroc").value == pytest.approx(value(spec, out, "auroc").value)


def test_the_batch_changes_no_number() -> None:
    model, spec = tiny_model("llama"), a_spec()
    several = compute(spec, a_bench(model, spec))
    single = compute(spec, a_bench(model, spec, batch=1))
    assert torch.allclose(several.vectors, single.vectors, atol=1e-4 * float(single.vectors.abs().max()))


def test_shuffled_labels_reach_what_the_null_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concept_direction, "NULLS", 40)
    model, _ = with_concept()
    fields = {"templates": ("the cat saw {}", "Paris is {}", "she said {}", "one, {}")}
    spec, out = run(model, **fields)
    auroc = value(spec, out, "auroc")
    assert auroc.value == 1 > 0.9 > auroc.null
    assert value(spec, out, "choosing_auroc").null > 0.5 + 0.05, "the best of three layers, where it is chosen"
    spec, out = run(model, **fields, labels="shuffled")
    assert value(spec, out, "auroc").value < 0.9


def test_the_scan_is_the_stream_along_the_direction_from_the_text_s_mean() -> None:
    model = tiny_model("llama")
    out = run(model)[1]
    ids = model.tokens(TEXT).ids
    for layer in (1, 2):
        x = trace(model, ids[None], [Site("resid_pre", layer)])[Site("resid_pre", layer)][0].double()
        v = out.vectors[layer]
        along = x @ v / v.norm()
        along = (along - along[~out.sinks.any(0)].mean()) / (v.norm() / 2)
        assert out.scan[layer].tolist() == pytest.approx(along.tolist(), rel=1e-5, abs=1e-6)


def test_all_it_reads_is_what_it_says_it_reads() -> None:
    model, spec, seen = tiny_model("llama"), a_spec(), []

    def spy(model, ids, sites):
        seen.append(set(sites))
        return trace(model, ids, sites)

    bench = replace(a_bench(model, spec), trace=spy)
    compute(spec, bench)
    assert {site for sites in seen for site in sites} == set(reads(spec, model.shape).sites)
    assert len(seen) == -(-72 // 32) + 1, "every prompt once, and the text"


def test_few_words_leave_claims_undecided_and_enough_do_not() -> None:
    model = tiny_model("llama")
    many = [f"{a}{b}" for a in "abcdefgh" for b in "ijklmnopqr"]
    assert failed(*run(model, positive=tuple(many[:40]), negative=tuple(many[40:]))) == []
    assert failed(*run(model, positive=tuple(many[:39]), negative=tuple(many[40:]))) == [ENOUGH]


@pytest.mark.parametrize(
    ("fields", "says", "field"),
    [
        ({"positive": ONE[:5]}, "`positive` has 5 words", "positive"),
        ({"negative": (*OTHER, ONE[0])}, "Said twice: `a`", "negative"),
        ({"positive": (*ONE, ONE[1])}, "Said twice: `c`", "positive"),
        ({"templates": ("It was good.",)}, "`It was good.` has no place", "templates"),
        ({"templates": ("{} and {}",)}, "more than one place", "templates"),
        ({"templates": ("{}",), "bos": False}, "as one token", "templates"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_mend(fields, says: str, field: str) -> None:
    with pytest.raises(NoteError) as caught:
        run(tiny_model("llama"), **fields)
    assert says in caught.value.message
    assert caught.value.field == field
    assert caught.value.hint


def test_prompts_that_are_read_at_a_sink_are_told() -> None:
    model = tiny_model("llama")
    prompts = [model.tokens(text).ids for row in filled(["the cat saw {}"], "abcdef") for text in row]
    assert not read_last(model, prompts, [Site("resid_pre", 0)], trace, 4, lambda *_: None).massive.any()
    with torch.no_grad():
        model.net.get_input_embeddings().weight[prompts[2][-1]] *= 50
    read = read_last(model, prompts, [Site("resid_pre", 0)], trace, 4, lambda *_: None)
    assert read.massive[:, 0].tolist() == [False, False, True, False, False, False]


def test_figures_draw_whatever_came_out() -> None:
    for fields in ({}, {"positive": tuple(f"{one}x" for one in LETTERS[:30]), "templates": ("so {}",)}):
        spec, out = run(tiny_model("gpt2"), **fields)
        for name, drawing in draw(spec, out).items():
            assert name in EXPERIMENT.figures
            assert render(drawing).content
            assert "nan" not in drawing.alt
