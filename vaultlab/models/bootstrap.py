"""Intervals by bootstrap, over what is independent."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

RESAMPLES = 1000


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
    means = torch.zeros(RESAMPLES, dtype=torch.float64)
    for one in range(RESAMPLES):
        drawn = torch.randint(clusters, (clusters,), generator=generator)
        means[one] = total[drawn].sum() / size[drawn].sum()
    return means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
