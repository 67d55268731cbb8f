"""Intervals by bootstrap: the same draws however many are made at once, and clusters drawn whole."""

import math

import pytest
import torch

from vaultlab.models import bootstrap
from vaultlab.models.bootstrap import RESAMPLES, interval
from vaultlab.models.draws import draws


@pytest.mark.parametrize("at_once", [1, 100, 7 * 12, 2**18])
def test_it_is_what_a_plain_loop_finds(at_once, monkeypatch):
    monkeypatch.setattr(bootstrap, "DRAWN", at_once)
    values = torch.randn(40, generator=draws("values"), dtype=torch.float64)
    cluster = torch.randint(12, (40,), generator=draws("clusters"))
    of_cluster = [values[cluster == one] for one in cluster.unique()]
    generator, means = draws("plain"), []
    for _ in range(RESAMPLES):
        drawn = torch.randint(len(of_cluster), (len(of_cluster),), generator=generator)
        means.append(torch.cat([of_cluster[one] for one in drawn]).mean())
    expected = torch.stack(means).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    again = draws("plain")
    torch.testing.assert_close(interval(values, cluster, again), expected)
    assert torch.equal(again.get_state(), generator.get_state()), "what is drawn next is the same, too"


def test_one_cluster_says_nothing():
    assert all(math.isnan(end) for end in interval(torch.ones(5), torch.zeros(5, dtype=torch.long), draws("one")))
