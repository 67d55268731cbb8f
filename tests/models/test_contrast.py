"""Directions between two sets of activations: planted ones are found, the traps fall, the numbers by other ways."""

import math

import pytest
import torch

from vaultlab.models.contrast import (
    RIDGE,
    _rows,
    accuracy,
    auroc,
    best_layer,
    by_word,
    cosines,
    differences,
    direction,
    lat,
    principal,
    probe,
    scores,
    separation,
    wins,
)

LAYERS, WORDS, TEMPLATES, WIDTH = 3, 120, 3, 32
METHODS = pytest.mark.parametrize("method", ["mean", "lat", "probe"])


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planted(size=3.0, noise=1.0, seed=0):
    """Activations of words on two sides of a random direction, each template somewhere else."""
    generator = gen(seed)
    u = torch.nn.functional.normalize(torch.randn(LAYERS, WIDTH, generator=generator, dtype=torch.float64), dim=-1)
    side = torch.rand(WORDS, generator=generator) < 0.5
    x = noise * torch.randn(LAYERS, WORDS, TEMPLATES, WIDTH, generator=generator, dtype=torch.float64)
    x += 5 * torch.randn(LAYERS, 1, TEMPLATES, WIDTH, generator=generator, dtype=torch.float64)
    x += size * (side.double() * 2 - 1)[:, None, None] * u[:, None, None]
    return x, side, u


def cos(a, b):
    return torch.cosine_similarity(a, b, dim=-1)


@METHODS
def test_a_planted_direction_is_found_with_its_sign_and_length(method: str) -> None:
    x, side, u = planted()
    v = direction(method, x, side, gen())
    assert (cos(v, u) > 0.95).all()
    assert v.norm(dim=-1) == pytest.approx([6.0] * LAYERS, rel=0.1)
    assert cos(direction(method, x, ~side, gen()), v) == pytest.approx([-1.0] * LAYERS)
    s = scores(x, v)
    apart = s[:, side].mean((1, 2)) - s[:, ~side].mean((1, 2))
    assert apart.tolist() == pytest.approx(v.norm(dim=-1).tolist())


def test_pca_of_differences_of_one_sign_deletes_the_concept() -> None:
    x, side, u = planted()
    assert (cos(principal(differences(x, side)), u).abs() < 0.5).all()
    assert (cos(lat(x, side, gen()), u).abs() > 0.95).all()


@METHODS
def test_what_nothing_tells_apart_has_no_direction_and_ties(method: str) -> None:
    x, side, _ = planted()
    x[0] = x[0, :1]  # every word alike, the templates not: the last token before the first layer
    v = direction(method, x, side, gen())
    assert v[0].norm() == 0
    s = scores(x, v)
    assert auroc(s, side)[0] == 0.5
    assert separation(s, side)[0] == 0
    assert accuracy(s, side, s.mean((1, 2)))[0] == 0.5
    assert not cosines(v)[0].any()
    # and where the direction is another layer's, all of a template are still one
    assert auroc(scores(x, v[1:2].expand(LAYERS, -1)), side)[0] == 0.5


def test_the_probe_is_at_the_minimum_of_its_loss() -> None:
    x, side, _ = planted(size=0.4)
    rows, y = _rows(x, side)
    for layer, w in enumerate(probe(x, side)):
        weights = torch.zeros(WIDTH + 1, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS(
            [weights], max_iter=300, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def loss(layer: int = layer, weights: torch.Tensor = weights) -> torch.Tensor:
            fit = torch.nn.functional.binary_cross_entropy_with_logits(rows[layer] @ weights, y)
            return fit + RIDGE / 2 * weights.square().sum()

        def step(optimiser=optimiser, loss=loss) -> torch.Tensor:
            optimiser.zero_grad()
            now = loss()
            now.backward()
            return now

        optimiser.step(step)
        assert weights.detach()[:-1].tolist() == pytest.approx(w.tolist(), abs=1e-5)


def test_numbers_are_those_counted_one_after_another() -> None:
    x, side, _ = planted(size=0.3)
    s = scores(x, direction("mean", x, side, gen())).round(decimals=0)  # with ties
    for layer, each in enumerate(s):
        one, other = each[side].flatten().tolist(), each[~side].flatten().tolist()
        above = sum((a > b) + (a == b) / 2 for a in one for b in other) / len(one) / len(other)
        assert float(auroc(s, side)[layer]) == pytest.approx(above)
        variances = [torch.tensor(part).double().var(correction=0) for part in (one, other)]
        gap = sum(one) / len(one) - sum(other) / len(other)
        assert float(separation(s, side)[layer]) == pytest.approx(gap / math.sqrt(sum(variances) / 2))
        right = [(a > 0.5) / len(one) for a in one] + [(b < 0.5) / len(other) for b in other]
        assert float(accuracy(s, side, torch.full((LAYERS,), 0.5))[layer]) == pytest.approx(sum(right) / 2)
    assert wins(s, side).shape == (LAYERS, int(side.sum()), int((~side).sum()))


def test_intervals_come_from_words_not_prompts() -> None:
    x, side, _ = planted(size=0.3)
    v = direction("mean", x, side, gen())
    s = scores(x, v)
    found = by_word(s[0], side, s[0].mean(), gen())
    for (low, high), value in zip(
        found, (auroc(s, side), accuracy(s, side, s.mean((1, 2))), separation(s, side)), strict=True
    ):
        assert low < float(value[0]) < high
    # ten copies of each prompt say nothing new
    again = by_word(s[0].repeat(1, 10), side, s[0].mean(), gen())
    assert again.auroc == pytest.approx(found.auroc)
    assert again.separation == pytest.approx(found.separation)
    # and one draw by itself is what its words say
    single = by_word(s[0][[0, -1]], torch.tensor([True, False]), torch.tensor(0.0), gen())
    assert single.auroc[0] == single.auroc[1]


def test_the_best_of_several_perfect_layers_is_where_the_sides_lie_further_apart() -> None:
    side = torch.tensor([True, True, False, False])
    s = torch.tensor([[[1.0], [2], [2], [1]], [[3], [4], [0], [1]], [[9], [10], [0], [1]]]).double()
    best = best_layer(s, side)
    assert best.layer == 2
    assert best.auroc.tolist() == [0.5, 1.0, 1.0]


def test_a_shuffle_that_chooses_its_layer_looks_better_where_it_chose_than_where_it_is_judged() -> None:
    """The trap: choosing and judging on one fold, the best of many layers is far above ½ with no concept at all."""
    chose, judged = [], []
    for seed in range(40):
        generator = gen(seed)
        learn, choose, judge = (torch.randn(30, 16, 1, 8, generator=generator, dtype=torch.float64) for _ in range(3))
        side = torch.arange(16) < 8
        v = direction("mean", learn, side, generator)
        best = best_layer(scores(choose, v), side)
        chose.append(float(best.auroc[best.layer]))
        judged.append(float(auroc(scores(judge, v), side)[best.layer]))
    assert sum(chose) / 40 > 0.75
    assert sum(judged) / 40 == pytest.approx(0.5, abs=0.07)
