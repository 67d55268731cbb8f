"""The logit lens: a second implementation in float64, and the readings that must not be taken for it."""

import math
import re

import pytest
import torch

from tests.tiny import FAMILIES, TEXT, tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments.logit_lens import EXPERIMENT, Spec, compute, draw, measure, needs, verify
from vaultlab.models import parts
from vaultlab.models.guesses import settled
from vaultlab.models.load import load
from vaultlab.models.trace import Site, trace
from vaultlab.plots.style import render
from vaultlab.result import Text

SENTENCE = TEXT[:60]


def run(model, text=SENTENCE, **fields):
    spec = Spec(model="tiny", text=text, **fields)
    bench = Bench(torch.device("cpu"), torch.float32, lambda name: model, {"text": Text("", "0", (("", text),))})
    return spec, compute(spec, bench)


def streams(model, ids):
    sites = [Site("resid_pre", layer) for layer in range(model.shape.layers)] + [Site("final")]
    found = trace(model, ids[None], [*sites, Site("logits")])
    return [found[site][0].double() for site in sites], found[Site("logits")][0].double()


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_every_number_is_what_a_plain_loop_finds(family: str) -> None:
    model = tiny_model(family)
    spec, out = run(model)
    ids = model.tokens(SENTENCE).ids
    xs, logits = streams(model, ids)
    norm, W_U = parts.final_norm(model, torch.float64), parts.unembedding(model, torch.float64).W_U
    for layer, x in enumerate(xs):
        for at in range(len(ids)):
            centred = x[at] - x[at].mean() if norm.kind == "layer" else x[at]
            read = centred / (centred.square().mean() + norm.eps).sqrt() * norm.gain + norm.bias
            p = (read @ W_U).softmax(-1)
            assert int(out.guess[layer, at]) == int(p.argmax())
            assert float(out.chance[layer, at]) == pytest.approx(float(p.max()), rel=1e-4)
            assert float(out.entropy[layer, at]) == pytest.approx(float(-(p * p.log2()).sum()), abs=1e-4)
            if at + 1 < len(ids):
                assert float(out.next_nats[layer, at]) == pytest.approx(float(-p[ids[at + 1]].log()), abs=1e-4)
            answer = logits[at].softmax(-1)
            gap = float((answer * (answer.log() - p.log())).sum())
            assert float(out.divergence[layer, at]) == pytest.approx(gap, abs=1e-4)
    assert [check for check in verify(spec, out) if not check.ok] == []
    assert [metric.name for metric in measure(spec, out)] == [quantity.name for quantity in EXPERIMENT.metrics]


@torch.no_grad()
def test_the_hidden_state_after_the_norm_is_the_wrong_last_layer() -> None:
    model = tiny_model("llama")
    ids = model.tokens(SENTENCE).ids
    _, logits = streams(model, ids)
    hidden = model.net(ids[None], output_hidden_states=True).hidden_states[-1][0]
    twice = parts.unembedding(model)(parts.final_norm(model)(hidden)).double()
    assert (twice - logits).abs().max() > 1e-3 * logits.abs().max()


def test_settled_is_the_last_change_of_mind() -> None:
    guess = torch.tensor([[1, 5, 2], [5, 5, 2], [1, 5, 3], [5, 5, 2]])
    assert settled(guess).tolist() == [3, 0, 3]


def test_one_token_has_nothing_after_it() -> None:
    model = tiny_model("gpt2")
    with pytest.raises(NoteError, match="one token"):
        run(model, "T")


def test_figures_say_what_they_show_whatever_the_text_holds() -> None:
    model = tiny_model("qwen2")
    spec, out = run(model, "a $b$ <c>\n" + SENTENCE)
    for name, drawing in draw(spec, out).items():
        figure = render(drawing)
        assert name in EXPERIMENT.figures
        assert figure.content
        assert not re.search(r"nan|inf", drawing.alt)


def test_what_it_needs_grows_with_the_text() -> None:
    shape = tiny_model("llama").shape
    few, many = needs(Spec(tokens=8), shape), needs(Spec(tokens=128), shape)
    assert few.bytes < many.bytes
    assert few.seconds < many.seconds


@pytest.mark.model
@torch.no_grad()
def test_with_the_last_layers_scale_the_first_has_no_opinion() -> None:
    """Its norm computed anew, the embedding reads itself; with the scale kept from the end it is all but uniform."""
    model = load("smollm2-135m")
    ids = model.tokens(Spec().text).ids
    xs, _ = streams(model, ids)
    norm, W_U = parts.final_norm(model, torch.float64), parts.unembedding(model, torch.float64).W_U

    def bits(x: torch.Tensor, scale: torch.Tensor) -> float:
        p = ((x * scale * norm.gain) @ W_U).softmax(-1)
        return float(torch.special.entr(p).sum(-1).mean() / math.log(2))

    assert bits(xs[0], norm.scale(xs[0])) < 2
    assert bits(xs[0], norm.scale(xs[-1])) > 0.95 * math.log2(model.shape.d_vocab)
