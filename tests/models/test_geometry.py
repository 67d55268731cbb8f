"""Geometry: constructed weights with known answers, plain loops, and what no turn of the layer may change."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultlab.models.geometry import geometry


def polygon(n):
    angle = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    return torch.stack([angle.cos(), angle.sin()], -1)


def antiprism(z):
    """Two squares on the unit sphere at heights ±z, one turned by 45°."""
    radius, eighth = math.sqrt(1 - z**2), math.pi / 4
    corners = [
        (radius * math.cos((2 * k + top) * eighth), radius * math.sin((2 * k + top) * eighth), z if top else -z)
        for top in (0, 1)
        for k in range(4)
    ]
    return torch.tensor(corners, dtype=torch.float64)


TETRAHEDRON = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64) / math.sqrt(3)
DIGON = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)

SOLIDS = {
    "dedicated": (torch.eye(3, dtype=torch.float64), 1, 0),
    "digon": (DIGON, 1 / 2, 1),
    "triangle": (polygon(3), 2 / 3, 1 / 2),
    "pentagon": (polygon(5), 2 / 5, 3 / 2),
    "tetrahedron": (TETRAHEDRON, 3 / 4, 1 / 3),
    "square antiprism": (antiprism(1 / math.sqrt(3)), 3 / 8, 5 / 3),
}


@pytest.mark.parametrize("name", SOLIDS)
@pytest.mark.parametrize("scale", [1.0, 1.3])
def test_solids_have_their_dimensionality_and_interference(name, scale):
    W, share, interference = SOLIDS[name]
    found = geometry(scale * W)
    assert torch.allclose(found.dimensionality, torch.tensor(share, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(found.interference, torch.tensor(scale**2 * interference, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(found.norm, torch.tensor(scale, dtype=torch.float64))


@pytest.mark.parametrize("z", [0.5, 0.6, 0.7])
def test_the_antiprism_has_three_eighths_at_one_height_only(z):
    assert (geometry(antiprism(z)).dimensionality - 3 / 8).abs().max() > 1e-3


def test_wrong_denominators_miss_the_pentagon():
    W = 1.7 * polygon(5)
    unit, norm = W / W.norm(dim=-1, keepdim=True), W.norm(dim=-1)
    along = unit @ W.T
    wrong = {
        "without the feature's own part": norm**2 / (along**2).fill_diagonal_(0).sum(-1),
        "not squared": norm**2 / along.abs().sum(-1),
        "both sides unit": norm**2 / ((unit @ unit.T) ** 2).sum(-1),
        "neither side unit": norm**2 / ((W @ W.T) ** 2).sum(-1),
        "WᵀW for W Wᵀ": norm[:2] ** 2 / ((W.T @ W) ** 2).sum(-1),
    }
    for name, share in wrong.items():
        assert (share - 2 / 5).abs().min() > 0.01, name


@st.composite
def weights(draw_):
    n, m = draw_(st.integers(1, 7)), draw_(st.integers(1, 5))
    W = torch.randn(n, m, generator=torch.Generator().manual_seed(draw_(st.integers(0, 999))), dtype=torch.float64)
    W[draw_(st.lists(st.integers(0, n - 1), max_size=2))] = 0
    if draw_(st.booleans()):
        W[:, -1] = W[:, 0]
    return W


@settings(deadline=None)
@given(weights())
def test_geometry_by_loops_and_its_bound(W):
    norm, interference, share = (part.tolist() for part in geometry(W))
    n = len(W)
    for i in range(n):
        length = math.sqrt(sum(float(w) ** 2 for w in W[i]))
        assert norm[i] == pytest.approx(length)
        if length == 0:
            assert interference[i] == share[i] == 0
            continue
        along = [sum(float(a) / length * float(b) for a, b in zip(W[i], W[j], strict=True)) ** 2 for j in range(n)]
        assert interference[i] == pytest.approx(sum(along) - along[i], abs=1e-12)
        assert share[i] == pytest.approx(length**2 / sum(along))
    assert sum(share) <= int(torch.linalg.matrix_rank(W)) + 1e-9


def test_turning_the_hidden_layer_changes_no_number():
    W = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).Q
    for before, after in zip(geometry(W), geometry(W @ turn), strict=True):
        assert torch.allclose(before, after)
