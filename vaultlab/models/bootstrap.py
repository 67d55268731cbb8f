"""Intervals by bootstrap, over what is independent."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

RESAMPLES = 1000

DRAWN = 2**18
"""Clusters drawn at once; the draws are the same however many that are."""


def interval(
    values: Float[Tensor, " row"], cluster: Int[Tensor, " row"], generator: torch.Generator
) -> Float[Tensor, " 2"]:
    """95 % of the means when whole clusters are drawn again; NaN of a single cluster."""
    _, place = torch.unique(cluster, return_inverse=True)
    clusters = int(place.max()) + 1
    if clusters == 1:
        return torch.full((2,), math.nan, dtype=torch.float64)
    size = torch.bincount(place).double()
    total = torch.zeros(clusters, dtype=torch.float64).index_add(0, place, values.double())
    means, step = [], max(1, DRAWN // clusters)
    for start in range(0, RESAMPLES, step):
        drawn = torch.randint(clusters, (min(step, RESAMPLES - start), clusters), generator=generator)
        means.append(total[drawn].sum(1) / size[drawn].sum(1))
    return torch.cat(means).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
