"""The control that has learnt nothing: the same numbers as weights, in random order."""

import copy
import hashlib
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field

from vaultlab.models.model import Model

Weights = Annotated[
    Literal["trained", "shuffled"],
    Field(description="The model's own weights, or as a control the same numbers in random order (shuffled)."),
]
"""A field of every Spec that offers this control."""


@torch.inference_mode(False)  # gradients must pass through it
def shuffled(model: Model, generator: torch.Generator) -> Model:
    """The model with the entries of every matrix in random order; gains and biases stay where they are.

    Each matrix keeps its numbers, and so its norm, and loses whatever it does. Tied matrices stay tied. It takes as
    much memory as the model again. By its content it is another model.
    """
    order_of = f"{model.sha256} shuffled {generator.get_state().numpy().tobytes().hex()}"
    net = copy.deepcopy(model.net)
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim > 1:
                order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
                weight.copy_(weight.flatten()[order].view_as(weight))
    return replace(model, net=net, sha256=hashlib.sha256(order_of.encode()).hexdigest())
