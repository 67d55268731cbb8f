"""Toys to test on: weights and biases none of which is zero, sparse vectors, and the loss one number at a time."""

import zlib

import torch


def draws(*names):
    return torch.Generator().manual_seed(zlib.crc32(repr(names).encode()))


def random_theta(toy, seeds=3, seed=0):
    """Weights and biases, none of them zero."""
    return torch.randn(seeds, toy.features, toy.hidden + 1, generator=draws(seed), dtype=torch.float64)


def sparse_vectors(toy, count=64, density=0.4, seed=1):
    mask, values = torch.rand(2, count, toy.features, generator=draws(seed), dtype=torch.float64)
    return (mask < density) * values


def loss_by_loops(toy, theta, x):
    """The definition, one number at a time."""
    W, b = theta[:, :-1].tolist(), theta[:, -1].tolist()
    n, m = toy.features, toy.hidden
    total = 0.0
    for vector in x.tolist():
        hidden = [sum(W[i][k] * vector[i] for i in range(n)) for k in range(m)]
        hidden = [max(h, 0.0) for h in hidden] if toy.hidden_relu else hidden
        for i in range(n):
            out = sum(W[i][k] * hidden[k] for k in range(m)) + b[i]
            out = max(out, 0.0) if toy.relu else out
            total += toy.importance**i * (vector[i] - out) ** 2
    return total / len(x)
