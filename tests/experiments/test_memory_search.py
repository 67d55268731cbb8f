"""Memory search: every memory by plain loops, planted ones found, what no gauge may change, words that are refused."""

import pytest
import torch
from pydantic import ValidationError

from tests.experiments.test_memory_agreement import SENTENCES, bench
from tests.planted import gauged, planted
from tests.tiny import tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiments.memory_search import EXPERIMENT, Spec, compute, draw, measure, quotes, verify
from vaultlab.models import parts
from vaultlab.models.prefixes import pushes
from vaultlab.models.search import Corpus, searched
from vaultlab.models.trace import Site, trace
from vaultlab.plots.style import render

FEW = SENTENCES[:4]


def run(model, concept=("sat",), texts=SENTENCES, **fields):
    spec = Spec(model="tiny", concept=concept, **fields)
    return spec, compute(spec, bench(model, texts))


def values(spec, out):
    return {metric.name: metric for metric in measure(spec, out)}


@torch.inference_mode()
def by_loops(model, concept):
    """(layer, key) → its largest push on the concept at a trigger kept; each trigger's prefix is read alone."""
    desk = bench(model, FEW)
    found = searched(desk, Corpus(model, desk.text("text"), 20_000))
    tokens, norm = [model.token_id(word) for word in concept], parts.final_norm(model)
    came = found.next[found.next >= 0]
    alone = {}
    for at in set(found.at.flatten().tolist()) - {-1}:
        [start] = found.start[found.sentences.holding(torch.tensor([at]))].tolist()
        sites = [*(Site("m", layer) for layer in range(3)), Site("final")]
        seen = trace(model, found.ids[None, start : at + 1], sites)
        alone[at] = [seen[site][0, -1] for site in sites[:3]], norm.scale(seen[Site("final")][0, -1])
    most = {}
    for layer in range(3):
        logits = pushes(model, parts.mlp(model, layer).W_out)
        write = logits[:, tokens].mean(1) - logits[:, came].mean(1)
        for key in range(80):
            at = [one for one in found.at[layer, key].tolist() if one >= 0]
            most[layer, key] = max(float(alone[one][0][layer][key] * alone[one][1] * write[key]) for one in at)
    return most


@pytest.mark.parametrize(
    ("family", "concept"), [("llama", ("sat",)), ("gpt2", ("cat", "dog", "Paris")), ("gpt_neox", ("sat", "so"))]
)
def test_plain_loops_over_single_prefixes_say_the_same(family, concept):
    model = tiny_model(family, dtype=torch.float64)
    spec, out = run(model, concept, FEW)
    most = by_loops(model, concept)
    best = sorted(most, key=lambda one: -most[one])[:20]
    assert [tuple(row) for row in out.strongest.tolist()] == best
    assert out.strongest_push.tolist() == pytest.approx([most[one] for one in best], rel=1e-4)
    assert out.by_layer.tolist() == pytest.approx([max(most[at, key] for key in range(80)) for at in range(3)])
    weight = sum(most[one] for one in best)
    assert values(spec, out)["layer"].value == pytest.approx(sum(one[0] * most[one] for one in best) / weight)
    assert [check for check in verify(spec, out) if not check.ok] == []
    assert len(verify(spec, out)) == 4 + out.gated


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_a_planted_memory_is_found_every_time(family):
    for key, target in ((7, "sat"), (50, "so")):
        model = planted(family, "cat", target, key)
        spec, out = run(model, (target,))
        assert out.strongest[0].tolist() == [0, key]
        assert {line[1] for line, row in zip(out.lines, out.row.tolist(), strict=True) if row == 0} == {"·cat"}
        first = [quote for quote in quotes(spec, out) if quote.said.startswith(f"layer 0, key {key},")]
        assert all("cat sat" in SENTENCES[quote.part] for quote in first)
        assert out.pushed[0][0] == f"·{target}"
        if target == "sat":
            assert all(line[2] == "·sat" for line, row in zip(out.lines, out.row.tolist(), strict=True) if row == 0)


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
def test_no_number_depends_on_how_a_memory_is_written_down(family):
    spec, out = run(tiny_model(family, dtype=torch.float64))
    _, other = run(gauged(tiny_model(family, dtype=torch.float64), range(3)))
    for name, metric in values(spec, out).items():
        there = values(spec, other)[name]
        assert (there.value, there.null) == (pytest.approx(metric.value), pytest.approx(metric.null)), name
    assert (other.lines, other.pushed) == (out.lines, out.pushed)
    assert torch.equal(other.strongest, out.strongest)


@torch.inference_mode()
def test_bare_values_and_one_sign_alone_would_find_others():
    plain, other = tiny_model("llama"), gauged(tiny_model("llama"), range(3))
    sat = plain.token_id("sat")
    first = []
    for model in (plain, other):
        bare = torch.stack([pushes(model, parts.mlp(model, layer).W_out)[:, sat] for layer in range(3)])
        first.append(set(bare.flatten().topk(20).indices.tolist()))
    assert len(first[0] & first[1]) < 15, "a bare value's push depends on how it is written down"
    _spec, out = run(plain)
    found = searched(bench(plain), Corpus(plain, bench(plain).text("text"), 20_000))
    came = found.next[found.next >= 0]
    strongest = found.coefficient.gather(-1, found.coefficient.abs().argmax(-1, keepdim=True))[..., 0]
    turned = 0
    for layer, key in out.strongest.tolist():
        logits = pushes(plain, parts.mlp(plain, layer).W_out[[key]])[0]
        turned += float(strongest[layer, key] * (logits[sat] - logits[came].mean())) < 0
    assert turned > 0, "some push it hardest with the sign that is not the strongest trigger's"


def test_came_counts_the_concept_after_its_triggers():
    model = planted("gpt2", "cat", "sat")
    spec, out = run(model)
    share = sum(text.count(" sat") for text in SENTENCES) / out.read
    assert values(spec, out)["came"].null == pytest.approx(share, rel=0.2)
    assert len(out.came) == values(spec, out)["came"].n > 20
    none = run(model, ("Paris",))[1]
    assert int(none.came.sum()) == 0, "nothing but Paris counts, and it begins its sentence"


def test_one_word_is_a_list_of_one():
    assert Spec(concept="sat") == Spec(concept=("sat",))
    for wrong in ([], [""], 7, ["a"] * 40):
        with pytest.raises(ValidationError):
            Spec.model_validate({"concept": wrong})


def test_a_word_of_several_tokens_is_refused_with_the_mend():
    with pytest.raises(NoteError, match="not one token") as error:
        run(tiny_model("llama"), ("sat", "xylophone"))
    assert error.value.field == "concept"
    assert error.value.hint


def test_the_figures_are_those_declared_and_the_same_bytes():
    spec, out = run(tiny_model("llama"))
    first, again = ({name: render(one) for name, one in draw(spec, out).items()} for _ in range(2))
    assert first == again
    assert set(first) == set(EXPERIMENT.figures)
