"""The causal inner product: what no change of basis changes."""

import pytest
import torch

from vaultlab.errors import NoteError
from vaultlab.models import causal
from vaultlab.models.causal import covariance, left_out, whitening
from vaultlab.models.draws import draws


@pytest.fixture
def unembedding(monkeypatch):
    monkeypatch.setattr(causal, "_ROWS", 7)  # a last piece that is not whole
    generator = draws("causal")
    mixed = torch.randn(6, 6, generator=generator, dtype=torch.float64) * torch.tensor([9.0, 1, 1, 1, 1, 0.2])
    return (torch.randn(60, 6, generator=generator, dtype=torch.float64) @ mixed + 3).float()


def test_the_covariance_is_the_one_of_all_rows(unembedding):
    torch.testing.assert_close(covariance(unembedding), torch.cov(unembedding.double().T))
    through = torch.randn(6, 6, generator=draws("map"), dtype=torch.float64)
    torch.testing.assert_close(covariance(unembedding, through), torch.cov((unembedding.double() @ through).T))


def test_whitened_vectors_have_no_covariance(unembedding):
    white = whitening(covariance(unembedding))
    torch.testing.assert_close(torch.cov((unembedding.double() @ white).T), torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(white, white.T)


def test_no_basis_changes_a_causal_cosine_and_any_changes_a_plain_one(unembedding):
    through = torch.randn(6, 6, generator=draws("map"), dtype=torch.float64)
    wide = unembedding.double()

    def cosine(u, v):
        return torch.nn.functional.cosine_similarity(u, v, dim=0)

    here, there = wide @ whitening(covariance(wide)), wide @ through @ whitening(covariance(wide @ through))
    torch.testing.assert_close(
        cosine(here[1] - here[2], here[3] - here[4]), cosine(there[1] - there[2], there[3] - there[4])
    )
    mapped = wide @ through
    moved = cosine(wide[1] - wide[2], wide[3] - wide[4]) - cosine(mapped[1] - mapped[2], mapped[3] - mapped[4])
    assert abs(float(moved)) > 1e-3


def test_without_centring_it_is_another_product(unembedding):
    wide = unembedding.double()
    second = wide.T @ wide / (len(wide) - 1)
    assert (second - covariance(wide)).abs().max() > 1


def test_fewer_words_than_dimensions_have_no_causal_product():
    with pytest.raises(NoteError, match="no inverse"):
        whitening(covariance(torch.randn(5, 8, generator=draws("few"))))


def test_a_pair_is_judged_by_the_others_alone():
    same = torch.tensor([[1.0, 0], [1, 0], [0, 1]]).double()
    torch.testing.assert_close(left_out(same), torch.tensor([0.5**0.5, 0.5**0.5, 0.0]).double())
