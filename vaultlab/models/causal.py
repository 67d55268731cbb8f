"""The causal inner product of a model's unembedding: ⟨u, v⟩ = uᵀ Cov(γ)⁻¹ v over all rows γ of W_U.

Logits and probabilities do not say which basis the last stream is in: W_U A read from x A⁻ᵀ is the same model, for any
invertible A. The plain product of unembedding vectors changes with A, this one does not.
Source: Park, Choe, Veitch 2024, The Linear Representation Hypothesis and the Geometry of Large Language Models.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from vaultlab.errors import NoteError

_ROWS = 8192
_LEAST = 1e-12


def covariance(
    unembedding: Float[Tensor, "d_vocab d_model"], through: Float[Tensor, "d_model d_model"] | None = None
) -> Float[Tensor, "d_model d_model"]:
    """Cov(γ) over the vocabulary in float64, some rows at a time; `through`: of γ A instead."""
    total = torch.zeros(unembedding.shape[1], dtype=torch.float64)
    for rows in _some(unembedding, through):
        total += rows.sum(0)
    mean = total / len(unembedding)
    square = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for rows in _some(unembedding, through):
        square += (rows - mean).T @ (rows - mean)
    return square / (len(unembedding) - 1)


def whitening(cov: Float[Tensor, "d_model d_model"]) -> Float[Tensor, "d_model d_model"]:
    """Cov^(-1/2), symmetric: between γ Cov^(-1/2) the plain product is the causal one.

    NoteError where the covariance has no inverse: fewer words than dimensions, or columns that say the same.
    """
    values, vectors = torch.linalg.eigh(cov)
    if not values[0] > _LEAST * values[-1]:
        raise NoteError(
            "This model's unembedding does not fill its dimensions: its covariance has no inverse.",
            "Take a model with more words than dimensions.",
            field="model",
        )
    white: Tensor = vectors @ torch.diag(values**-0.5) @ vectors.T
    return white


def left_out(differences: Float[Tensor, "pair d_model"]) -> Float[Tensor, " pair"]:
    """The cosine of every difference with the mean of the others."""
    others = differences.sum(0) - differences
    return torch.nn.functional.cosine_similarity(differences, others, dim=-1)


def _some(
    unembedding: Float[Tensor, "d_vocab d_model"], through: Float[Tensor, "d_model d_model"] | None
) -> Iterator[Float[Tensor, "row d_model"]]:
    for rows in torch.split(unembedding, _ROWS):
        wide = rows.double().cpu()
        yield wide if through is None else wide @ through
