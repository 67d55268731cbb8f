"""Contrast geometry: closed forms of planted sets, variance by plain loops, the traps of cosines and of shuffles."""

import math

import pytest
import torch

from tests.tiny import tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments.contrast_geometry import EXPERIMENT, Spec, compute, directions, draw, measure, reads, verify
from vaultlab.models.spread import spread, total_variance, within_variance
from vaultlab.models.trace import Site, trace
from vaultlab.plots.style import render
from vaultlab.result import Text

ONE = tuple(f"the cat saw {word}." for word in ("Paris", "Rome", "France", "Italy", "one", "two"))
OTHER = tuple(f"she said it, {word}." for word in ("Paris", "Rome", "France", "Italy", "one"))


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(model, **fields):
    spec = Spec(**{"model": "tiny", "positive": ONE, "negative": OTHER, **fields})
    texts = {
        name: Text(name, "0", tuple(("", one) for one in getattr(spec, name))) for name in ("positive", "negative")
    }
    seen = []

    def spy(model, ids, sites):
        seen.extend(sites)
        return trace(model, ids, sites)

    out = compute(spec, Bench(torch.device("cpu"), torch.float32, lambda name: model, texts, trace=spy))
    assert set(seen) == set(reads(spec, model.shape).sites)
    return spec, out


def value(spec, out, name):
    return next(metric for metric in measure(spec, out) if metric.name == name)


def test_the_share_of_a_planted_difference_is_its_closed_form() -> None:
    """Noise of variance 1 in each of d dimensions and means c apart: share = c²/4 / (c²/4 + d)."""
    n, d, c = 4000, 16, 6.0
    side = torch.arange(n) < n // 2
    x = torch.randn(1, n, d, generator=gen(), dtype=torch.float64) + 20
    x[0, :, 0] += c * side
    found = spread(x, side[None])
    assert float(found.share) == pytest.approx(c**2 / 4 / (c**2 / 4 + d), rel=0.03)
    assert float(found.gap[0, 0].norm()) == pytest.approx(c, rel=0.02)
    assert float(found.cosine) > 0.99, "the trap: what is common to all hides that they lie six σ apart"
    centred = spread(x - x.mean(1, keepdim=True), side[None])
    assert float(centred.cosine) == pytest.approx(-1), "and taken from their mean, two sets of one size are opposite"


@pytest.mark.parametrize("sizes", [(6, 6), (3, 9)])
def test_variance_splits_into_within_and_between_by_plain_loops(sizes) -> None:
    n = sum(sizes)
    x = torch.randn(2, n, 5, generator=gen(), dtype=torch.float64)
    side = torch.arange(n) < sizes[0]
    x[:, side] += 1
    for layer in range(2):
        rows, mean = list(x[layer]), x[layer].mean(0)
        total = sum(float((row - mean) @ (row - mean)) for row in rows) / n
        within = 0.0
        for part in (rows[: sizes[0]], rows[sizes[0] :]):
            own = sum(part) / len(part)
            within += sum(float((row - own) @ (row - own)) for row in part) / n
        assert float(total_variance(x)[layer]) == pytest.approx(total)
        assert float(within_variance(x, side)[layer]) == pytest.approx(within)
        assert float(spread(x, side[None]).share[0, layer]) == pytest.approx(1 - within / total)


def test_shuffled_labels_leave_one_in_n_less_one_whatever_the_activations_are() -> None:
    x = torch.randn(1, 12, 6, generator=gen(), dtype=torch.float64) * torch.logspace(-2, 2, 6, dtype=torch.float64)
    side = torch.arange(12) < 4
    shuffles = torch.stack([side[torch.randperm(12, generator=gen(at))] for at in range(4000)])
    shares = spread(x, shuffles).share[:, 0]
    assert float(shares.mean()) == pytest.approx(1 / 11, abs=4 * float(shares.std()) / math.sqrt(4000))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_checks_hold_and_numbers_are_those_of_each_text_alone(family: str) -> None:
    model = tiny_model(family)
    spec, out = run(model)
    assert [check.name for check in verify(spec, out) if not check.ok] == []
    for row, name in enumerate((spec.site, "attn", "mlp")):
        site = Site(name, 1)
        x = [trace(model, model.tokens(text).ids[None], [site])[site][0, -1].double() for text in (*ONE, *OTHER)]
        one, other = sum(x[: len(ONE)]) / len(ONE), sum(x[len(ONE) :]) / len(OTHER)
        assert float(out.cosine[row, 1]) == pytest.approx(float(torch.cosine_similarity(one, other, dim=0)), rel=1e-4)
        if not row:
            assert torch.allclose(out.gaps[1], one - other, atol=1e-5)
    given = directions(spec, out)
    assert given.chosen == value(spec, out, "layer").value
    low, high = value(spec, out, "share").interval
    assert low <= value(spec, out, "share").value <= high
    for name, drawing in draw(spec, out).items():
        assert name in EXPERIMENT.figures
        assert render(drawing).content
        assert "nan" not in drawing.alt


def test_before_the_first_layer_texts_that_end_alike_do_not_differ() -> None:
    spec, out = run(tiny_model("llama"))
    assert value(spec, out, "first_share").value == 0
    assert value(spec, out, "layer_share").value[1] > 0
    assert all(check.ok for check in verify(spec, out))


def test_shuffled_labels_lie_within_the_null() -> None:
    spec, out = run(tiny_model("llama"))
    assert value(spec, out, "share").value > value(spec, out, "share").null
    spec, out = run(tiny_model("llama"), labels="shuffled", seed=3)
    assert value(spec, out, "share").value < value(spec, out, "share").null


@pytest.mark.parametrize(
    ("fields", "says", "field"),
    [
        ({"positive": ONE[:3]}, "`positive` has 3 texts", "positive"),
        ({"negative": (*OTHER, "a"), "bos": False}, "`a` as one token", "negative"),
    ],
)
def test_what_cannot_be_done_is_refused(fields, says: str, field: str) -> None:
    with pytest.raises(NoteError) as caught:
        run(tiny_model("llama"), **fields)
    assert says in caught.value.message
    assert caught.value.field == field
