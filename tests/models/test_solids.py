"""Solids in a layer: built from the solids themselves, turned, mixed, and disturbed as training disturbs them."""

import math

import networkx
import pytest
import torch

from tests.models.test_geometry import SOLIDS as BUILT
from tests.models.toy_case import draws
from vaultlab.models.geometry import geometry
from vaultlab.models.solids import ABSENT, OTHER, SOLIDS, census, groups, joined, line, on_lines_by_chance

NAMES = [solid.name for solid in SOLIDS]


def layer(*names, noise=0.0):
    """The solids beside each other in directions of their own, the layer turned at random."""
    parts = [torch.ones(1, 1, dtype=torch.float64) if name == "alone" else BUILT[name][0] for name in names]
    W = torch.block_diag(*parts)
    turn = torch.linalg.qr(torch.randn(W.shape[1], W.shape[1], generator=draws("turn"), dtype=torch.float64)).Q
    return W @ turn + noise * torch.randn(W.shape, generator=draws("noise"), dtype=torch.float64)


def everywhere(W):
    return torch.ones(W.shape[:-1], dtype=torch.bool)


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_every_solid_is_found_for_what_it_is(noise):
    W = layer(*NAMES, *NAMES, noise=noise)
    expected = [place for place, solid in enumerate(SOLIDS) for _ in range(solid.features)] * 2
    assert census(W, everywhere(W)).tolist() == expected
    if not noise:
        assert line(geometry(W).dimensionality, 1e-9).tolist() == expected


def test_what_is_not_represented_belongs_to_nothing():
    W = layer("pentagon", "digon")
    W[0] *= 0.1
    kept = W.norm(dim=-1) >= 0.5
    assert census(W, kept).tolist() == [ABSENT, *[OTHER] * 4, 3, 3]


@pytest.mark.parametrize(
    "rows",
    [
        [[1, 0], [0.7, 0.714]],  # two that overlap and are no opposites
        [[1, 0, 0], [-0.5, 0.866, 0], [-0.5, -0.5, 0.7]],  # three, but not in a plane
        [[1, 0], [0.309, 0.951], [-0.809, 0.588], [-0.809, -0.588]],  # a pentagon that lacks one
    ],
)
def test_other_groups_are_not_taken_for_solids(rows):
    W = torch.tensor(rows, dtype=torch.float64)
    assert set(census(W, everywhere(W)).tolist()) == {OTHER}


def test_on_a_line_without_its_solid():
    """Three directions of two thirds each that a crowd of weak features fills up: on the line, and no triangle."""
    weak = torch.randn(400, 3, generator=draws("weak"), dtype=torch.float64)
    weak = torch.nn.functional.normalize(weak, dim=-1) * math.sqrt(0.5 * 3 / 400)
    W = torch.cat([torch.eye(3, dtype=torch.float64), weak])
    kept = W.norm(dim=-1) >= 0.5
    assert [SOLIDS[place].name for place in line(geometry(W).dimensionality[:3], 0.03)] == ["triangle"] * 3
    assert census(W, kept)[:3].tolist() == [0, 0, 0]


def test_groups_are_those_of_a_graph_library():
    near = torch.rand(3, 40, 40, generator=draws("graph")) < 0.03
    near = near | near.mT | torch.eye(40, dtype=torch.bool)
    for graph, found in zip(near, groups(near), strict=True):
        for component in networkx.connected_components(networkx.from_numpy_array(graph.numpy())):
            assert {int(found[each]) for each in component} == {min(component)}


def test_models_are_looked_at_one_by_one():
    W = torch.randn(2, 3, 12, 4, generator=draws("models"), dtype=torch.float64)
    W[0, 1] = 0
    W[0, 1, :10] = layer("pentagon", "pentagon")
    kept = W.norm(dim=-1) >= 0.5
    found = census(W, kept)
    assert found[0, 1].tolist() == [4] * 10 + [ABSENT] * 2
    for each in ((0, 0), (0, 1), (1, 2)):
        assert torch.equal(found[each], census(W[each], kept[each]))
    assert joined(W, kept).diagonal(dim1=-2, dim2=-1).equal(kept)


@pytest.mark.parametrize(("features", "hidden"), [(40, 20), (51, 20), (20, 20), (9, 4)])
def test_chance_is_that_of_frames_drawn_at_random(features, hidden):
    drawn = torch.randn(2000, features, hidden, generator=draws("frames", features), dtype=torch.float64)
    frames = torch.linalg.qr(drawn).Q
    shares = geometry(frames).dimensionality
    assert shares.mean() == pytest.approx(hidden / features)
    found = float((line(shares, 0.03) < OTHER).double().mean())
    assert on_lines_by_chance(hidden / features, features, 0.03) == pytest.approx(found, abs=0.006)
