"""A direction taken out of a model's stream, in passing or out of its weights.

    x − (x · d̂) d̂        everywhere in the stream: nothing can be written along d̂, and nothing read

The same comes of weights that write nothing along it: the embedding and every layer's W_O and W_out, with their biases.
The unembedding writes nothing: where it is the embedding, it must be a matrix of its own first.
Source: Arditi et al. 2024, Refusal in Language Models Is Mediated by a Single Direction, sections 2.4 and 4.1.
"""

import copy
import hashlib
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaultlab.models.family import sub
from vaultlab.models.intervene import Edit
from vaultlab.models.model import Model
from vaultlab.models.trace import Site, has


def streams(model: Model) -> list[Site]:
    """Every place where the stream stands, from the embedding to the last."""
    found = [Site("resid_pre", 0)]
    for layer in range(model.shape.layers):
        between = Site("resid_mid", layer)
        found += [between] * has(model, between) + [Site("resid_post", layer)]
    return found


def project(x: Float[Tensor, "*of d_model"], unit: Float[Tensor, " d_model"]) -> Float[Tensor, "*of d_model"]:
    """x without what it has along a unit direction."""
    unit = unit.to(x)
    left: Tensor = x - (x @ unit)[..., None] * unit
    return left


def removed(model: Model, unit: Float[Tensor, " d_model"]) -> list[Edit]:
    """The edits that take a unit direction out everywhere in the stream."""
    return [Edit(site, partial(project, unit=unit)) for site in streams(model)]


def unit(vector: Float[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
    """The direction of a vector, of length 1."""
    return torch.nn.functional.normalize(vector, dim=-1)


def added(site: Site, vector: Float[Tensor, " d_model"]) -> Edit:
    """The edit that adds a vector to the stream at a site, at every token."""
    return Edit(site, lambda x: x + vector.to(x))


def without(model: Model, unit: Float[Tensor, " d_model"], *, untie: bool = True) -> Model:
    """The model with weights that write nothing along a unit direction. It takes as much memory as the model again.

    Without `untie` a tied unembedding loses the direction too: another model.
    """
    net: Any = copy.deepcopy(model.net)
    with torch.no_grad():
        if untie:
            head = net.get_output_embeddings()
            head.weight = nn.Parameter(head.weight.clone(), requires_grad=False)
        tables = [net.get_input_embeddings().weight, model.family.positions(net)]
        for table in filter(lambda one: one is not None, tables):
            table.copy_(project(table, unit))
        for layer in range(model.shape.layers):
            block = model.family.block(net, layer)
            for path in (model.family.attn_out, model.family.mlp_out):
                _write_nothing(sub(block, path), unit)
    content = f"{model.sha256} without {unit.double().cpu().numpy().tobytes().hex()}"
    return replace(model, net=net, sha256=hashlib.sha256(content.encode()).hexdigest())


def _write_nothing(module: nn.Module, unit: Float[Tensor, " d_model"]) -> None:
    """GPT-2 keeps its weights as they multiply from the right, all others transposed; the toys' MLPs have none."""
    weights: Any = module
    if isinstance(module, nn.Linear):
        weights.weight.copy_(project(weights.weight.T, unit).T)
    elif getattr(module, "weight", None) is not None:
        weights.weight.copy_(project(weights.weight, unit))
    if getattr(module, "bias", None) is not None:
        weights.bias.copy_(project(weights.bias, unit))


def random_units(count: int, d_model: int, generator: torch.Generator) -> Float[Tensor, "count d_model"]:
    """Directions drawn at random, each of length 1."""
    return torch.nn.functional.normalize(torch.randn(count, d_model, generator=generator), dim=-1)
