"""Directions: the law of |cos| against closed forms and quadrature, bounds against arrangements that meet them."""

import itertools
import math

import numpy as np
import pytest
import torch

from vaultlab.models.directions import cosine_at, largest, median_of_largest, pack, tail, welch

GRID = torch.tensor([0, 1e-3, 0.05, 0.2, 0.5, 0.83, 0.99, 1], dtype=torch.float64)


@pytest.mark.parametrize(
    ("dimensions", "closed"),
    [
        (2, lambda e: 1 - 2 / math.pi * np.arcsin(e)),
        (3, lambda e: 1 - e),
        (5, lambda e: 1 - (3 * e - e**3) / 2),
        (7, lambda e: 1 - (15 * e - 10 * e**3 + 3 * e**5) / 8),
    ],
)
def test_the_tail_has_its_closed_form_in_few_dimensions(dimensions, closed):
    assert tail(GRID, dimensions).numpy() == pytest.approx(closed(GRID.numpy()), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("dimensions", [2, 8, 65, 1024])
def test_the_tail_by_quadrature(dimensions):
    angles = np.linspace(0, math.pi / 2, 200_001)
    density = np.sin(angles) ** (dimensions - 2)
    within = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    expected = np.interp(np.arccos(GRID.numpy()), angles, within / within[-1])
    assert tail(GRID, dimensions).numpy() == pytest.approx(expected, rel=1e-4, abs=1e-12)


def test_a_wrong_number_of_dimensions_would_be_seen():
    off = torch.tensor(0.3, dtype=torch.float64)
    assert float(tail(off, 8)) != pytest.approx(float(tail(off, 7)), rel=0.05)


@pytest.mark.parametrize("dimensions", [2, 9, 300])
def test_cosine_at_undoes_the_tail(dimensions):
    share = torch.tensor([0.9, 0.5, 1e-3] + [1e-12] * (dimensions > 2), dtype=torch.float64)
    assert torch.allclose(tail(cosine_at(share, dimensions), dimensions), share, rtol=1e-9, atol=0)


def test_sixteen_in_eight_come_as_near_as_83():
    assert float(median_of_largest(torch.tensor(16), 8)) == pytest.approx(0.83, abs=0.005)
    assert float(median_of_largest(torch.tensor(2), 2)) == pytest.approx(math.cos(math.pi / 4))


def unit(rows):
    rows = torch.tensor(rows, dtype=torch.float64)
    return rows / rows.norm(dim=-1, keepdim=True)


PHI = (1 + math.sqrt(5)) / 2
ARRANGEMENTS = {
    "orthogonal": (unit(np.eye(4)), 0),
    "digon": (unit([[1.0, 0], [-1, 0]]), 1),
    "three lines in a plane": (unit([[math.cos(k * math.pi / 3), math.sin(k * math.pi / 3)] for k in range(3)]), 1 / 2),
    "tetrahedron": (unit([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]), 1 / 3),
    "icosahedron": (
        unit([[0, 1, PHI], [0, 1, -PHI], [1, PHI, 0], [1, -PHI, 0], [PHI, 0, 1], [PHI, 0, -1]]),
        1 / math.sqrt(5),
    ),
    "28 in 7": (
        unit([[3 if i in pair else -1 for i in range(8)] for pair in itertools.combinations(range(8), 2)]),
        1 / 3,
    ),
}


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_arrangements_that_meet_welchs_bound(name):
    U, most = ARRANGEMENTS[name]
    assert float(largest(U).max()) == pytest.approx(most, abs=1e-12)
    rank = int(torch.linalg.matrix_rank(U))
    if name != "digon":
        assert welch(len(U), rank) == pytest.approx(most, abs=1e-12)


def test_far_beyond_the_dimensions_higher_orders_are_the_better_bound():
    first = math.sqrt((200 / 8 - 1) / 199)
    assert welch(200, 8) > first + 0.03
    assert welch(16, 8) == pytest.approx(math.sqrt((16 / 8 - 1) / 15))
    for n, d in itertools.product((3, 5, 9, 40), (2, 3, 7)):  # lines in a plane do no better than evenly apart
        assert 0 <= welch(n, d) <= (math.cos(math.pi / n) if d == 2 else 1)


def test_largest_by_loops():
    U = unit(np.random.default_rng(0).normal(size=(2, 6, 3)))
    for model in range(2):
        for i in range(6):
            others = [abs(float(U[model, i] @ U[model, j])) for j in range(6) if j != i]
            assert float(largest(U)[model, i]) == pytest.approx(max(others))


@pytest.mark.parametrize(
    ("vectors", "dimensions", "most"),
    [(8, 8, 0), (9, 8, 1 / 8), (65, 64, 1 / 64), (5, 2, math.cos(math.pi / 5)), (28, 7, 1 / 3)],
)
def test_packing_finds_the_arrangements_that_are_known(vectors, dimensions, most):
    start = torch.randn(4, vectors, dimensions, generator=torch.Generator().manual_seed(0))
    steps = []
    packed = torch.nn.functional.normalize(pack(start, 1000, steps.append).double(), dim=-1)
    assert steps == list(range(1000))
    assert float(largest(packed).amax(-1).min()) == pytest.approx(most, abs=1e-3)


def test_packing_keeps_the_best_that_it_met():
    start = ARRANGEMENTS["icosahedron"][0][None].float()
    assert float(largest(pack(start, 3, lambda step: None)).max()) == pytest.approx(1 / math.sqrt(5), abs=1e-6)
