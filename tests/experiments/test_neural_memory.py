"""Neural memory: by plain loops, with exp in the place of f, in closed form; no way of writing it down changes it."""

import math
from dataclasses import replace

import pytest
import torch

from tests.planted import gauged
from tests.tiny import FAMILIES, tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments import neural_memory
from vaultlab.experiments.neural_memory import EXPERIMENT, Spec, compute, draw, measure, quotes, verify
from vaultlab.models import bootstrap, parts, softmax_memory
from vaultlab.models.search import askable
from vaultlab.models.sentences import cut
from vaultlab.models.softmax_memory import Looks, Scored, balanced, beyond_hull, look, regauged, scored
from vaultlab.models.trace import Site, trace
from vaultlab.models.weights import MLPParts
from vaultlab.plots.style import render
from vaultlab.result import Text

SENTENCES = (
    "One cat sat on the mat. The dog saw the cat sat there? Paris is the capital of France!",
    "She said that he said it, and it was so. Two, three, and a second line.",
)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 50)


def bench(model):
    text = Text("", "0", tuple(("", one) for one in SENTENCES))
    return Bench(torch.device("cpu"), torch.float32, lambda name: model, {"text": text}, batch=4)


def run(model, **fields):
    spec = Spec(model="tiny", **{"layer": 1, **fields})
    return spec, compute(spec, bench(model))


def failed(spec, out):
    return [check.name for check in verify(spec, out) if not check.ok]


def exp_for_f(model):
    """The model with exp in the place of its activation."""

    class Exp(torch.nn.Module):
        def forward(self, a):
            return a.exp()

    for layer in range(3):
        mlp = model.family.block(model.net, layer).mlp
        setattr(mlp, "act_fn" if hasattr(mlp, "act_fn") else "act", Exp())
    return model


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_plain_loops_say_the_same(family):
    model = tiny_model(family, dtype=torch.float64)
    spec, out = run(model)
    mlp, sentences = parts.mlp(model, 1), cut(model, SENTENCES, 2000)
    may, rows = askable(model, sentences), []
    for start, stop in zip(sentences.start.tolist(), sentences.stop.tolist(), strict=True):
        x = trace(model, sentences.ids[None, start:stop], [Site("mlp_in", 1)])[Site("mlp_in", 1)][0]
        rows += [one for at, one in enumerate(x) if may[start + at]]
    assert out.looks.shape[1] == len(rows)
    for place in range(0, len(rows), 7):
        x, w, a, m = rows[place], [], [], []
        for i in range(80):
            up = float(x @ mlp.W_in[:, i] + mlp.b_in[i])
            gate = up if mlp.W_gate is None else float(x @ mlp.W_gate[:, i] + mlp.b_gate[i])
            a.append(gate)
            w.append(mlp.W_out[i] * (1 if mlp.W_gate is None else up))
            m.append(float(mlp.act(torch.tensor(gate, dtype=torch.float64))))
        Z = sum(map(math.exp, a))
        recalled = sum(math.exp(one) / Z * v for one, v in zip(a, w, strict=True))
        written = sum(one * v for one, v in zip(m, w, strict=True))
        by_softmax = [math.exp(one) / Z * float(v.norm()) for one, v in zip(a, w, strict=True)]
        by_mlp = [abs(one) * float(v.norm()) for one, v in zip(m, w, strict=True)]
        one = Looks(*out.looks[:, place].tolist())
        assert one.cosine == pytest.approx(float(recalled @ written / recalled.norm() / written.norm()))
        assert one.memories == pytest.approx(sum(by_softmax) ** 2 / sum(s * s for s in by_softmax))
        assert one.own_memories == pytest.approx(sum(by_mlp) ** 2 / sum(s * s for s in by_mlp))
        assert one.largest == pytest.approx(max(map(math.exp, a)) / Z)
        assert one.log_Z == pytest.approx(math.log(Z))
        assert one.same_first == (by_softmax.index(max(by_softmax)) == by_mlp.index(max(by_mlp)))
        assert one.reach == pytest.approx(max(float(v @ written) for v in w) / float(written @ written))
    assert failed(spec, out) == []


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_with_exp_in_the_place_of_f_the_layer_is_a_neural_memory_times_z(family):
    model = exp_for_f(tiny_model(family, dtype=torch.float64))
    spec, out = run(model)
    looks, found = Looks(*out.looks), {one.name: one for one in measure(spec, out)}
    torch.testing.assert_close(looks.cosine, torch.ones_like(looks.cosine))
    torch.testing.assert_close(looks.memories, looks.own_memories)
    assert found["same_first"].value == 1
    torch.testing.assert_close(looks.own_square, looks.log_Z.exp().square() * looks.recalled_square)
    assert found["explained"].value < 1, "one scale for all tokens is not Z"
    assert abs(found["cosine"].null) < 0.7


def closed(keys, values, act=torch.relu):
    n, d = values.shape
    return MLPParts(keys, values, torch.zeros(n), torch.zeros(d), act)


def test_a_key_of_many_gets_what_the_formula_says():
    values = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    for beta in (0.0, 1.0, 4.0):
        p = scored(closed(torch.eye(8)[:, :6], values), beta * torch.eye(8)[[2]]).weights[0]
        expected = torch.full((6,), 1 / (math.exp(beta) + 5))
        expected[2] = math.exp(beta) / (math.exp(beta) + 5)
        torch.testing.assert_close(p, expected)
    same = scored(closed(torch.ones(8, 6), values), torch.randn(3, 8))
    torch.testing.assert_close(same.weights, torch.full((3, 6), 1 / 6))
    alike = look(closed(torch.ones(8, 6), values / values.norm(dim=1)[:, None]), same, same)
    torch.testing.assert_close(alike.memories, torch.full((3,), 6.0))
    torch.testing.assert_close(alike.log_Z, math.log(6) + same.a[:, 0])


def test_one_memory_is_its_value():
    value = torch.tensor([[3.0, 4.0]])
    mlp = closed(torch.tensor([[1.0], [0.0]]), value)
    x = torch.tensor([[2.0, 5.0]])
    own = scored(mlp, x)
    one = look(mlp, own, own)
    assert (float(one.memories), float(one.largest), float(one.cosine)) == pytest.approx((1, 1, 1))
    assert float(one.reach) == pytest.approx(0.5), "the value itself, where the MLP writes it twice"


def test_the_hull_of_a_square():
    square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    mlp, own = closed(torch.zeros(2, 4), square), Scored(torch.zeros(1, 4), torch.ones(1, 4))
    ways = torch.randn(1, 64, 2, generator=torch.Generator().manual_seed(0))
    for point, outside in (((0.0, 0.0), False), ((1.0, 0.9), False), ((1.2, 0.0), True), ((1.1, 1.1), True)):
        assert (float(beyond_hull(mlp, torch.tensor([point]), own, ways)) > 1e-6) is outside


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_no_number_depends_on_how_a_gated_memory_is_written_down(family):
    _, out = run(tiny_model(family, dtype=torch.float64))
    model = gauged(tiny_model(family, dtype=torch.float64), range(3))
    _, other = run(model)
    for name in ("looks", "null", "intervals", "softmax", "own", "random"):
        torch.testing.assert_close(getattr(other, name), getattr(out, name))
    assert out.movable
    x = torch.randn(5, 48, dtype=torch.float64)
    one, moved = (parts.mlp(each, 1) for each in (tiny_model(family, dtype=torch.float64), model))
    for trap in (
        lambda mlp: mlp.coefficients(x).softmax(-1),
        lambda mlp: (x @ mlp.W_in + mlp.b_in).softmax(-1),
        lambda mlp: (x @ mlp.W_gate + mlp.b_gate).softmax(-1) @ mlp.W_out,
        lambda mlp: (mlp.W_out @ mlp(x).T).amax(0),
    ):
        assert float((trap(one) - trap(moved)).norm() / trap(one).norm()) > 0.1, "this one does depend on it"


def traded(model):
    """A ReLU model of gpt2's kind with every (k, v) of layer 1 as (γk, v/γ), in place."""
    mlp, gamma = model.family.block(model.net, 1).mlp, 2.0 ** torch.linspace(-2, 2, 80, dtype=torch.float64)
    with torch.no_grad():
        mlp.c_fc.weight *= gamma
        mlp.c_fc.bias *= gamma
        mlp.c_proj.weight /= gamma[:, None]
    return model


def test_nor_with_a_relu_whose_keys_have_no_scale(monkeypatch):
    def relu():
        return tiny_model("gpt2", dtype=torch.float64, activation_function="relu")

    spec, out = run(relu())
    _, other = run(traded(relu()))
    for name in ("looks", "null", "softmax", "own", "random"):
        torch.testing.assert_close(getattr(other, name), getattr(out, name))
    assert out.movable
    assert failed(spec, out) == []
    monkeypatch.setattr(neural_memory, "balanced", lambda mlp: mlp)
    spec, bare = run(relu())
    assert failed(spec, bare) == ["however a memory is written down"]
    assert not torch.allclose(run(traded(relu()))[1].looks, bare.looks, rtol=0.01)


def test_a_gated_relu_has_both_freedoms():
    mlp = parts.mlp(tiny_model("llama", dtype=torch.float64, hidden_act="relu"), 1)
    x = torch.randn(7, 48, dtype=torch.float64)
    other = regauged(mlp, torch.Generator().manual_seed(1))
    torch.testing.assert_close(other(x), mlp(x))
    assert not torch.allclose(scored(other, x).weights, scored(mlp, x).weights, rtol=0.01)
    torch.testing.assert_close(scored(balanced(other), x).weights, scored(balanced(mlp), x).weights)
    torch.testing.assert_close(balanced(mlp)(x), mlp(x))


def test_an_ungated_gelu_leaves_no_choice():
    spec, out = run(tiny_model("gpt2"))
    assert not out.movable
    assert "however a memory is written down" not in [check.name for check in verify(spec, out)]


def test_weights_that_are_no_distribution_are_seen(monkeypatch):
    for wrong in (lambda one: one.a.exp(), lambda one: one.a.sigmoid(), lambda one: one.a.softmax(0)):
        with monkeypatch.context() as patched:
            patched.setattr(Scored, "weights", property(wrong))
            spec, out = run(tiny_model("llama"))
        assert "softmax weights are a distribution" in failed(spec, out)
        assert "FF_exp(x) = Z(x) · MN(x)" in failed(spec, out)


def test_what_lies_outside_the_hull_is_seen(monkeypatch):
    """The MLP's own write in the place of the weighted mean."""
    monkeypatch.setattr(Scored, "weights", property(lambda one: torch.nn.functional.silu(one.a)))
    spec, out = run(tiny_model("llama"))
    assert "MN(x) lies in the hull of the values" in failed(spec, out)
    assert float(out.hull_residual) > 0.1


def test_scores_of_the_other_half_of_the_key_are_seen(monkeypatch):
    """u as the key and the gate in the value: the products are wrong, and nothing stays as it is."""

    def swapped(mlp, x, keys=None):
        turned = replace(mlp, W_in=mlp.W_gate, b_in=mlp.b_gate, W_gate=mlp.W_in, b_gate=mlp.b_in)
        return scored(turned, x, keys)

    monkeypatch.setattr(neural_memory, "scored", swapped)
    spec, out = run(tiny_model("llama"))
    assert {"Σ f(a_i) w_i + b = the MLP's output", "however a memory is written down"} <= set(failed(spec, out))


def test_random_keys_have_the_norms_of_the_models():
    mlp = parts.mlp(tiny_model("llama"), 1)
    for keys in neural_memory._random_keys(bench(None), Spec(), mlp):
        torch.testing.assert_close(keys.norm(dim=0), mlp.W_gate.norm(dim=0))
        assert not torch.allclose(keys, mlp.W_gate)


def test_the_token_asked_for_is_shown_or_refused():
    spec, out = run(tiny_model("llama"), token="cat")
    assert out.line[1:] == ("·cat", "·sat")
    assert [quote.token for quote in quotes(spec, out)] == ["·cat"]
    assert out.window[int((out.places == out.chosen).nonzero())] == "·cat"
    assert out.window[0] == "One" or out.places[0] == -1
    with pytest.raises(NoteError, match="No token `zebra`") as refused:
        run(tiny_model("llama"), token="zebra")
    assert refused.value.field == "token"


def test_massive_tokens_are_left_out():
    model = tiny_model("llama")
    with torch.no_grad():
        model.net.get_input_embeddings().weight[model.token_id("sat")] *= 200
    spec, out = run(model, layer=0)
    assert out.left_out == 2
    assert out.left_out == next(one.value for one in measure(spec, out) if one.name == "left_out")
    with pytest.raises(NoteError):
        run(model, layer=0, token="sat")


def test_the_figures_are_those_declared():
    spec, out = run(tiny_model("gpt2"))
    drawn = draw(spec, out)
    assert list(drawn) == list(EXPERIMENT.figures)
    assert all(render(one).content for one in drawn.values())


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(NoteError, match="no layer 3"):
        run(tiny_model("llama"), layer=3)
    model = tiny_model("llama")
    object.__setattr__(model, "shape", model.shape.__class__(**{**vars(model.shape), "d_mlp": 0}))
    with pytest.raises(NoteError, match="no MLP"):
        run(model)


def test_scores_as_large_as_exp_cannot_hold():
    mlp = closed(400 * torch.eye(8)[:, :6], torch.randn(6, 8))
    one = scored(mlp, 3 * torch.eye(8)[[1]])
    assert torch.isfinite(softmax_memory.look(mlp, one, one).cosine).all()
