"""Memory edit: against weights that are really changed, the closed form, side effects by plain passes, traps."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch

from tests.planted import gauged, planted
from tests.tiny import FAMILIES, tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments import memory_edit
from vaultlab.experiments.memory_edit import EXPERIMENT, Spec, compute, draw, measure, quotes, verify, where_awake
from vaultlab.models import bootstrap, edits, parts
from vaultlab.models.sentences import cut
from vaultlab.models.trace import Site, trace
from vaultlab.plots.style import render
from vaultlab.result import Text

HERE = "Paris is the capital of France; the dog saw the cat"
ELSEWHERE = (
    "One cat sat on the mat. The dog saw the cat sat there? Rome is the capital of Italy!",
    "She said that he said it, and it was so.",
)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 50)


def bench(model, here=HERE):
    texts = {"text": Text("", "0", (("", here),)), "elsewhere": Text("", "1", tuple(("", one) for one in ELSEWHERE))}
    return Bench(torch.device("cpu"), torch.float32, lambda name: model, texts, batch=8)


def run(model, here=HERE, **fields):
    spec = Spec(model="tiny", **{"layer": 1, "token": "mat", **fields})
    return spec, compute(spec, bench(model, here))


def values(spec, out):
    return {metric.name: metric for metric in measure(spec, out)}


def failed(spec, out):
    return [check.name for check in verify(spec, out) if not check.ok]


def really_changed(model, layer, key, delta):
    """A copy of the model with the value changed in its weights."""
    other = replace(model, net=copy.deepcopy(model.net))
    with torch.no_grad():
        parts.mlp(other, layer).W_out[key] += delta
    return other


def logits(model, ids):
    return trace(model, ids[None], [Site("logits")])[Site("logits")][0]


def direction(model, token):
    """The gradient of a logit less the mean behind the final norm, its scale held: written out."""
    W_U = model.net.get_output_embeddings().weight
    norm = parts.final_norm(model)
    g = norm.gain * (W_U[model.token_id(token)] - W_U.mean(0))
    return g - g.mean() if norm.kind == "layer" else g


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_it_is_what_the_model_with_changed_weights_does(family):
    model = tiny_model(family, dtype=torch.float64)
    spec, out = run(model, strength=2.0)
    ids, target = model.tokens(HERE).ids, model.token_id("mat")
    m = trace(model, ids[None], [Site("m", 1)])[Site("m", 1)][0]
    W_out = parts.mlp(model, 1).W_out
    assert out.key == int((m[-1].abs() * W_out.norm(dim=1)).argmax())
    g = direction(model, "mat")
    delta = 2 * W_out[out.key].norm() * m[-1, out.key].sign() * g / g.norm()
    other = really_changed(model, 1, out.key, delta)
    was, now = logits(model, ids)[-1], logits(other, ids)[-1]
    # transformers takes the norm of an RMSNorm in float32 whatever the model is in
    alike = partial(pytest.approx, rel=1e-4, abs=1e-6)
    assert float(out.live[-1]) == alike(float((now - now.mean() - was + was.mean())[target]))
    assert float(out.after[out.target]) == alike(float(now.softmax(0)[target]))
    assert out.rank.tolist() == [1 + int((one > one[target]).sum()) for one in (was, now)]
    sentences, place = cut(model, ELSEWHERE, 1000), 0
    for start, stop in zip(sentences.start.tolist(), sentences.stop.tolist(), strict=True):
        before, after = (logits(one, sentences.ids[start:stop]).log_softmax(-1) for one in (model, other))
        for at in range(stop - start):
            p = before[at].exp()
            assert float(out.divergence[0, place]) == alike(float((p * (before[at] - after[at])).sum()))
            assert bool(out.changed[0, place]) == bool(before[at].argmax() != after[at].argmax())
            came = int(sentences.next[start + at])
            if came >= 0:
                assert float(out.loss[0, place]) == alike(float(before[at, came] - after[at, came]))
            place += 1
    assert place == out.divergence.shape[1]
    assert failed(spec, out) == []


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_the_closed_form_holds_with_everything_frozen(family):
    model = tiny_model(family, dtype=torch.float64)
    _, out = run(model, key=7, strength=30.0)
    ids = model.tokens(HERE).ids
    found = {site: one[0, -1] for site, one in trace(model, ids[None], [Site("m", 1), Site("final")]).items()}
    g, final = direction(model, "mat"), found[Site("final")]
    centred = final - final.mean() if parts.final_norm(model).kind == "layer" else final
    s = (centred.square().mean() + parts.final_norm(model).eps).rsqrt()
    rise = 30 * found[Site("m", 1)][7].abs() * parts.mlp(model, 1).W_out[7].norm() * s * g.norm()
    assert float(out.direct[-1]) == pytest.approx(float(rise))
    assert float(out.direct[0]) == pytest.approx(-float(rise))
    assert float(out.normed[-1]) != pytest.approx(float(rise), rel=0.01), "the norm is no constant"
    assert float(out.live[-1]) != pytest.approx(float(out.normed[-1]), rel=1e-3), "nor are the layers above"


def test_in_the_last_layer_nothing_answers_to_it():
    _, out = run(tiny_model("llama", dtype=torch.float64), layer=2)
    torch.testing.assert_close(out.live, out.normed)


def test_no_other_direction_as_long_rises_further():
    model = tiny_model("gpt2", dtype=torch.float64)
    spec = Spec(model="tiny", layer=1, token="mat")
    asked = memory_edit._question(spec, bench(model), model)
    changes = memory_edit._changes(spec, bench(model), model, asked)
    pushed = changes.delta @ changes.g * asked.m[-1, changes.keys]
    assert float(pushed[0]) > float(pushed[1 : 1 + memory_edit.DRAWS].abs().max())
    lengths = changes.delta.norm(dim=1)
    torch.testing.assert_close(lengths[: 1 + memory_edit.DRAWS], lengths[:1].expand(1 + memory_edit.DRAWS))
    assert (pushed[1 + memory_edit.DRAWS :] > 0).all(), "other memories are pushed the same way"
    assert asked.key not in changes.keys[1 + memory_edit.DRAWS :].tolist()


def test_no_number_depends_on_how_a_memory_is_written_down():
    _, out = run(tiny_model("llama", dtype=torch.float64))
    _, other = run(gauged(tiny_model("llama", dtype=torch.float64), range(3)))
    for name in ("direct", "normed", "live", "random", "others", "after", "divergence", "changed", "answers"):
        torch.testing.assert_close(getattr(other, name), getattr(out, name))
    assert (other.key, other.likely, other.guesses) == (out.key, out.likely, out.guesses)


@pytest.mark.parametrize("wrong", ["no sign", "no length"])
def test_a_change_that_sees_the_scale_is_seen(monkeypatch, wrong):
    def change(value, m, way):
        size = value.norm(dim=-1) if wrong == "no sign" else m.sign().to(value)
        return size[:, None] * way / way.norm(dim=-1, keepdim=True)

    monkeypatch.setattr(memory_edit, "change_of", change)
    model, spec = tiny_model("llama"), Spec(model="tiny", layer=1, token="mat")
    asked = memory_edit._question(spec, bench(model), model)
    opposite, apart = (asked.m[-1] < 0).nonzero()[:, 0].tolist(), []
    for key in opposite[:8]:
        of = asked._replace(key=key)
        changes = memory_edit._changes(spec, bench(model), model, of)
        apart.append(float(memory_edit._residuals(spec, bench(model), model, of, changes)["gauge_residual"]))
    assert max(apart) > 0.1
    spec, out = run(model, key=opposite[0])
    assert ("the rise in closed form" in failed(spec, out)) is (wrong == "no sign")


def test_weights_that_do_not_stay_are_seen(monkeypatch):
    model = tiny_model("llama")
    before = copy.deepcopy(model.net.state_dict())
    spec, out = run(model)
    assert out.moved == 0
    assert all(torch.equal(one, model.net.state_dict()[name]) for name, one in before.items())
    plain = memory_edit.last_stream

    def careless(model, ids, write, since, *held):
        with torch.no_grad():
            parts.mlp(model, since.layer).W_out[0, 0] += 2.0**-20
        return plain(model, ids, write, since, *held)

    monkeypatch.setattr(memory_edit, "last_stream", careless)
    spec, out = run(model)
    assert out.moved == 1
    assert "all weights are what they were" in failed(spec, out)


def test_one_bit_of_one_weight_is_another_content():
    model = tiny_model("llama")
    was = edits.content(model)
    weight = model.net.get_input_embeddings().weight
    with torch.no_grad():
        weight[3, 4] = torch.nextafter(weight[3, 4], torch.tensor(9.0))
    assert [name for name, one in edits.content(model).items() if was[name] != one] == ["model.embed_tokens.weight"]
    assert len(edits.content(tiny_model("gpt2", dtype=torch.bfloat16))) == len(edits.content(tiny_model("gpt2")))


@pytest.mark.parametrize("wrong", ["m of another key", "another layer's write", "twice"])
def test_another_addition_than_the_changed_value_is_seen(monkeypatch, wrong):
    plain = memory_edit.written

    def otherwise(m, keys, delta):
        if wrong == "m of another key":
            return plain(m, keys + 1, delta)
        return 2 * plain(m, keys, delta) if wrong == "twice" else plain(m.roll(1, 0), keys, delta)

    monkeypatch.setattr(memory_edit, "written", otherwise)
    spec, out = run(tiny_model("llama"), key=5)
    assert "what is added is what a changed value writes" in failed(spec, out)


def test_layers_above_that_are_not_held_break_the_closed_form(monkeypatch):
    plain = memory_edit.last_stream
    monkeypatch.setattr(memory_edit, "last_stream", lambda *args: plain(*args[:4]))
    spec, out = run(tiny_model("llama"))
    assert "the rise in closed form" in failed(spec, out)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_planted_memory_changes_only_where_it_wakes(family):
    model = planted(family, "cat", "sat")
    with torch.no_grad():  # no attention above it, so that where it sleeps nothing is heard of it
        for layer in (1, 2):
            model.family.block(model.net, layer).get_submodule(model.family.attn_out).weight.zero_()
    spec, out = run(model, here="the dog saw the cat", layer=0, key=7, strength=20.0)
    assert values(spec, out)["rank"].value == 1
    model_ids = cut(model, ELSEWHERE, 1000).ids
    cats = model_ids == model.token_id("cat")
    assert cats.sum() >= 2
    assert (out.divergence[0][cats] > 0.1).all()
    assert (out.divergence[0][~cats] < 1e-3).all()
    torch.testing.assert_close(out.answers[cats], torch.ones(int(cats.sum())))
    assert {line[1] for line in out.lines} == {"·cat"}
    assert where_awake(out)[0] > 0.99
    assert values(spec, out)["changed"].value == pytest.approx(float(cats.float().mean()), abs=1e-6)


def test_the_figures_and_places_are_those_declared():
    spec, out = run(tiny_model("llama"), strength=10.0)
    drawn = draw(spec, out)
    assert list(drawn) == list(EXPERIMENT.figures)
    assert all(render(one).content for one in drawn.values())
    assert len(quotes(spec, out)) == len(out.places) > 0
    assert all(out.changed[0, place] for place in out.places.tolist())
    none = out._replace(places=out.places[:0], lines=(), guesses=(), part=out.part[:0])
    assert render(draw(spec, none)["elsewhere"]).content
    assert quotes(spec, none) == []


def test_what_cannot_be_asked_is_refused():
    model = tiny_model("llama")
    for fields, field in (
        ({"layer": 3}, "layer"),
        ({"key": 80}, "key"),
        ({"token": "zebra crossing"}, "token"),
        ({"here": "the cat sat " * 60}, "text"),
    ):
        with pytest.raises(NoteError) as refused:
            run(model, **fields)
        assert refused.value.field == field
    asleep = tiny_model("gpt2", activation_function="relu")
    m = trace(asleep, asleep.tokens(HERE).ids[None], [Site("m", 1)])[Site("m", 1)][0, -1]
    with pytest.raises(NoteError, match="does not answer"):
        run(asleep, key=int((m == 0).nonzero()[0, 0]))
    object.__setattr__(model, "shape", model.shape.__class__(**{**vars(model.shape), "d_mlp": 0}))
    with pytest.raises(NoteError, match="no MLP"):
        run(model)
