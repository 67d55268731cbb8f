"""Solids over sparsities: which sparsities are shown, and what is said of them."""

import numpy as np

from vaultlab.plots.clusters import Cluster
from vaultlab.plots.solids import ALONE, NONE, Sparsities, draw_graphs, draw_solids, telling


def seen(*solids: list[str]) -> Sparsities:
    """So many features in these solids, one list a sparsity; the numbers are of no interest."""
    zeros = np.zeros(len(solids))
    return Sparsities(
        np.geomspace(1, 8, len(solids)),
        [np.full(len(each), 0.5) for each in solids],
        [np.array(each, dtype=str) for each in solids],
        *[zeros] * 6,
    )


def test_shown_is_where_most_features_are_in_one_solid() -> None:
    digons, more = ["digon"] * 2, ["digon"] * 4
    assert telling(seen(digons, more, more, [])) == [1]
    assert telling(seen(digons, more, ["triangle"] * 3, ["pentagon"] * 5)) == [1, 2, 3]


def test_of_four_solids_the_rarest_has_no_panel_of_its_own() -> None:
    solids = ["triangle"] * 3, ["tetrahedron"] * 4, ["pentagon"] * 5, ["square antiprism"] * 8
    assert telling(seen(*solids)) == [1, 2, 3]


def test_without_any_solid_shown_is_where_most_are_represented() -> None:
    assert telling(seen([ALONE] * 2, [ALONE, NONE, NONE], [NONE])) == [1]


def test_what_is_said_counts_features_and_not_groups() -> None:
    pair = Cluster(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([[0, 1]]), "digon")
    one = Cluster(np.zeros((1, 2)), np.zeros((0, 2), dtype=int), ALONE)
    said = draw_graphs([(2.0, [pair, pair, one]), (4.0, [one])]).alt
    assert said.endswith("in: at 2 1 alone, 4 digon; at 4 1 alone.")


def test_nothing_represented_is_said() -> None:
    assert draw_solids(seen([], [])).alt.endswith("at most none is represented.")
    assert draw_solids(seen([], [ALONE, NONE])).alt.endswith("at most 1 alone at 8, 1 in no solid at 8.")


def test_sparsities_that_read_alike_have_a_panel_each() -> None:
    one = Cluster(np.zeros((1, 2)), np.zeros((0, 2), dtype=int), ALONE)
    assert len(draw_graphs([(2.0001, [one]), (2.0002, [one])]).figure.axes) == 2
