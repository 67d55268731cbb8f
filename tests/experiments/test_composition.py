"""Composition: every pair by its whole matrices, the null by rotations that are drawn, symmetries, the wrong ways."""

import math
import re
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from tests.tiny import FAMILIES, tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments.composition import DISTANCES, EXPERIMENT, Spec, compute, draw, measure, needs, verify
from vaultlab.models import composition, parts
from vaultlab.models.composition import KINDS
from vaultlab.models.load import load
from vaultlab.models.trace import Site, trace
from vaultlab.models.weights import Rotary
from vaultlab.plots.style import render

Q, K, V = range(3)
GROUPED = ["llama", "mistral", "qwen2", "qwen3"]
LAYER_NORM = ["gpt2", "gpt_neox"]


def run(model, **fields):
    spec = Spec(model="tiny", **fields)
    return spec, compute(spec, Bench(torch.device("cpu"), torch.float32, lambda name: model))


def value(spec, out, name):
    return next(metric for metric in measure(spec, out) if metric.name == name)


def ratio(product, *factors):
    return float(product.norm() / math.prod(float(factor.norm()) for factor in factors))


# -- the same numbers from the whole matrices, written down with plain loops


def turn(rotary, d_head, distance):
    """R of q R kᵀ, plane by plane."""
    R = torch.eye(d_head, dtype=torch.float64)
    if rotary is not None:
        half = len(rotary.frequencies)
        for i in range(half):
            angle = float(distance * rotary.frequencies[i].double())
            R[i, i] = R[i + half, i + half] = math.cos(angle)
            R[i, i + half], R[i + half, i] = math.sin(angle), -math.sin(angle)
    return R


def by_matrices(model, distances, *, fold=True, centre=None, group=None):
    """[kind, writer, reader] from d_model × d_model products alone; `fold`, `centre` and `group` for the wrong ways."""
    shape, d = model.shape, model.shape.d_model
    per_group = shape.heads // shape.kv_heads
    shared = group or (lambda head: head // per_group * per_group)
    found = torch.full((3, shape.layers * shape.heads, shape.layers * shape.heads), math.nan, dtype=torch.float64)
    circuits = []
    for layer in range(shape.layers):
        attn, norm = parts.attention(model, layer, torch.float64), parts.attn_norm(model, layer, torch.float64)
        centred = norm.kind == "layer" if centre is None else centre
        less_mean = torch.eye(d, dtype=torch.float64) - (torch.ones(d, d, dtype=torch.float64) / d if centred else 0)
        reads = less_mean @ torch.diag(norm.gain) if fold else torch.eye(d, dtype=torch.float64)
        seen = [at for at in distances if attn.window is None or at < attn.window]
        for head in range(shape.heads):
            W_Q, W_K, W_V = reads @ attn.W_Q[head], reads @ attn.W_K[shared(head)], reads @ attn.W_V[shared(head)]
            if attn.q_norm is not None:
                W_Q, W_K = W_Q * attn.q_norm.gain, W_K * attn.k_norm.gain
            QK = [W_Q @ turn(attn.rotary, shape.d_head, at) @ W_K.T for at in seen]
            circuits.append((layer, W_V @ attn.W_O[head] @ less_mean, QK))
    for w, (first, OV, _) in enumerate(circuits):
        for r, (second, later, QK) in enumerate(circuits):
            if first < second:
                norm = math.sqrt(sum(float(one.norm()) ** 2 for one in QK)) * float(OV.norm())
                found[Q, w, r] = math.sqrt(sum(float((OV @ one).norm()) ** 2 for one in QK)) / norm
                found[K, w, r] = math.sqrt(sum(float((OV @ one.T).norm()) ** 2 for one in QK)) / norm
                found[V, w, r] = ratio(OV @ later, OV, later)
    return found


def off(one, other):
    """The largest relative difference of two tables of scores, which must have the same gaps."""
    assert torch.equal(one.isfinite(), other.isfinite())
    return float((one.double() / other.double() - 1).abs().nan_to_num(0).max())


@pytest.mark.parametrize(
    ("family", "distance"), [("mistral", None), *((family, 3) for family in FAMILIES), ("llama", 0)]
)
def test_every_pair_is_what_its_whole_matrices_give(family, distance):
    model = tiny_model(family)
    _, out = run(model, distance=distance)
    distances = range(DISTANCES) if distance is None else [distance]
    assert off(out.scores, by_matrices(model, distances)) < 1e-4
    assert out.scores[0].isfinite().sum() == 3 * 4 * 4  # three pairs of layers


@pytest.mark.parametrize("family", FAMILIES)
def test_an_unfolded_gain_gives_other_numbers(family):
    model = tiny_model(family)
    assert off(run(model, distance=0)[1].scores, by_matrices(model, [0], fold=False)) > 0.05


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mean_goes_out_under_layer_norm_and_stays_under_rms_norm(family):
    model = tiny_model(family)
    wrong = by_matrices(model, [0], centre=family not in LAYER_NORM)
    assert off(run(model, distance=0)[1].scores, wrong) > 0.01


@pytest.mark.parametrize("family", GROUPED)
def test_tiled_instead_of_repeated_heads_give_other_numbers(family):
    model = tiny_model(family)
    per_group = model.shape.heads // model.shape.kv_heads
    wrong = by_matrices(model, [0], group=lambda head: head % model.shape.kv_heads * per_group)
    assert off(run(model, distance=0)[1].scores, wrong) > 0.05


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "gpt2"])
def test_a_circuit_at_a_distance_is_another_one_and_turns_one_way(family):
    model = tiny_model(family)
    near, far = (run(model, distance=at)[1].scores for at in (0, 4))
    assert off(near[:2], far[:2]) > 1e-2
    assert off(near[V], far[V]) == 0
    assert off(far, by_matrices(model, [-4])) > 1e-3


def test_without_rotary_positions_the_distance_is_nothing():
    model = tiny_model("gpt2")
    assert off(run(model, distance=0)[1].scores, run(model)[1].scores) < 1e-5


@pytest.mark.parametrize(
    "rotary", [Rotary(torch.tensor([1.0, 0.3, 0.01]), 6), Rotary(torch.tensor([0.7, 0.2]), 7, 1.3)]
)
def test_all_distances_at_once_are_one_after_the_other(rotary):
    drawn = torch.randn(3, rotary.d_head, rotary.d_head, generator=torch.Generator().manual_seed(0)).double()
    gram, distances = drawn @ drawn.mT, [0, 1, 5, 40]
    turns = [rotary.matrix(at, gram) for at in distances]
    # rotate() has its angles in float32
    torch.testing.assert_close(
        composition.turned(rotary, gram, distances),
        torch.stack([R @ gram @ R.T for R in turns]).mean(0),
        rtol=1e-5,
        atol=1e-5,
    )


# -- the null


def haar(d, generator):
    Q, R = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    return Q * R.diagonal().sign()


def test_the_null_and_its_spread_are_those_of_rotations():
    generator = torch.Generator().manual_seed(0)
    d = 12
    one, other = (torch.randn(d, k, generator=generator, dtype=torch.float64) for k in (3, 2))
    one, other = one / one.norm(), other / other.norm()
    squares = torch.stack([(one.T @ haar(d, generator) @ other).square().sum() for _ in range(6000)])
    spread = composition.by_chance(composition.peak(one), composition.peak(other), d)
    assert float(squares.mean()) == pytest.approx(1 / d, rel=0.03)
    assert float(squares.std()) == pytest.approx(float(spread), rel=0.05)


@pytest.mark.parametrize("width", [24, 23])
def test_writes_turned_at_random_keep_their_strength_and_lose_their_place(width):
    generator = torch.Generator().manual_seed(1)
    writes = torch.randn(50, 4, 24, generator=generator)
    writes = writes - writes.mean(-1, keepdim=True) * (width < 24)
    drawn = composition.random_writes(writes, generator, width)
    kept = [torch.linalg.svdvals(one) for one in (writes, drawn)]
    torch.testing.assert_close(*kept, rtol=1e-3, atol=1e-4)
    assert drawn.sum(-1).abs().max() < 1e-3 or width == 24
    unit = torch.nn.functional.normalize(drawn.flatten(1), dim=1).view_as(drawn)
    reads = torch.randn(1, 40, 24, 3, generator=generator)
    reads = reads - reads.mean(-2, keepdim=True) * (width < 24)
    reads = reads / torch.linalg.matrix_norm(reads, keepdim=True)
    assert float(composition.scores(unit, reads).square().mean()) == pytest.approx(1 / width, rel=0.05)


def test_random_weights_compose_by_chance():
    """Gaussian heads of no model: 1/√d on average, and no closer to it than their rank allows."""
    spec, out = run(tiny_model("llama"))
    for kind in KINDS:
        mean = value(spec, out, f"{kind.lower()}_mean")
        assert sum(one**2 for one in mean.value) / len(mean.value) == pytest.approx(1 / 48, rel=0.2)
        assert mean.null == pytest.approx(48**-0.5)


def test_a_head_that_reads_just_what_another_writes_is_found():
    """Planted: layer 2's head 3 has its keys where layer 0's head 1 writes, and nothing else does."""
    model = tiny_model("gpt2")
    width, d_head = model.shape.d_model, model.shape.d_head
    with torch.no_grad():
        norm = model.net.transformer.h[2].ln_1
        norm.weight.fill_(1)
        W_O = parts.attention(model, 0).W_O[1]
        # as peaked as can be: both in one direction
        direction = torch.nn.functional.normalize(W_O[0] - W_O[0].mean(), dim=0)
        model.net.transformer.h[0].attn.c_proj.weight[d_head : 2 * d_head] = W_O.norm(dim=1)[:, None] * direction
        columns = slice(width + 3 * d_head, width + 4 * d_head)
        keys = model.net.transformer.h[2].attn.c_attn.weight[:, columns]
        model.net.transformer.h[2].attn.c_attn.weight[:, columns] = direction[:, None] * keys.norm(dim=0)
    spec, out = run(model)
    assert (out.writer, out.reader) == ("L0H1", "L2H3")
    assert value(spec, out, "k_composition").value == pytest.approx(1, abs=1e-5)
    assert value(spec, out, "k_rank").value == 1
    assert value(spec, out, "q_composition").value < 0.5
    assert [check.name for check in verify(spec, out) if not check.ok] == []


# -- what must not matter, and what must


def changed(family, change):
    model = tiny_model(family)
    with torch.no_grad():
        change(model)
    return off(run(model)[1].scores, run(tiny_model(family))[1].scores)


def invertible(size, seed=1):
    return torch.eye(size) + 0.3 * torch.randn(size, size, generator=torch.Generator().manual_seed(seed))


def test_another_basis_for_values_changes_no_score():
    M = invertible(16)

    def change(model, both=True):
        for layer in model.net.model.layers:
            attn = layer.self_attn
            for head in range(2):
                rows = slice(16 * head, 16 * head + 16)
                attn.v_proj.weight[rows] = M.T @ attn.v_proj.weight[rows]
            for head in range(4) if both else ():
                cols = slice(16 * head, 16 * head + 16)
                attn.o_proj.weight[:, cols] = attn.o_proj.weight[:, cols] @ torch.linalg.inv(M).T

    assert changed("llama", change) < 1e-4
    assert changed("llama", lambda model: change(model, both=False)) > 0.01


def test_only_a_basis_that_commutes_with_the_rotation_changes_no_score():
    plane = torch.arange(8)
    re, im = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    C = torch.eye(16)
    C[plane, plane], C[plane, plane + 8], C[plane + 8, plane], C[plane + 8, plane + 8] = re, im, -im, re

    def change(model, M):
        for layer in model.net.model.layers:
            attn = layer.self_attn
            for proj, by, heads in ((attn.q_proj, M, 4), (attn.k_proj, torch.linalg.inv(M).T, 2)):
                for head in range(heads):
                    rows = slice(16 * head, 16 * head + 16)
                    proj.weight[rows] = by.T @ proj.weight[rows]

    assert changed("llama", lambda model: change(model, C)) < 1e-3
    assert changed("llama", lambda model: change(model, invertible(16))) > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_biases_and_scales_change_no_score(family):
    def change(model):
        for name, weight in model.net.named_parameters():
            if name.endswith("bias"):
                weight += 1
            elif "o_proj" in name or "dense.weight" in name:
                weight *= 3

    assert changed(family, change) < 1e-5


def test_what_layer_norm_takes_out_may_be_written():
    def change(model):
        for block in model.net.transformer.h:
            block.attn.c_proj.weight += torch.randn(48, 1, generator=torch.Generator().manual_seed(2))

    def change_rms(model):
        for block in model.net.model.layers:
            block.self_attn.o_proj.weight += torch.randn(1, 64, generator=torch.Generator().manual_seed(2))

    assert changed("gpt2", change) < 1e-4
    assert changed("llama", change_rms) > 0.05


# -- checks hold, and can fail


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_checks_hold_in_every_family_and_dtype(family, dtype):
    spec, out = run(tiny_model(family, dtype=dtype))
    assert [check for check in verify(spec, out) if not check.ok] == []


@pytest.mark.parametrize("field", ["whole_residual", "basis_residual", "folding_residual", "over_bound", "chance_z"])
@pytest.mark.parametrize("broken", [9.0, math.nan])
def test_every_residual_can_fail_its_check(field, broken):
    spec, out = run(tiny_model("llama"))
    damaged = out._replace(**{field: torch.full_like(getattr(out, field), broken)})
    assert sum(not check.ok for check in verify(spec, damaged)) == 1


def test_a_score_that_is_off_fails_its_check():
    spec, out = run(tiny_model("llama"))
    failed = [check.name for check in verify(spec, out._replace(scores=out.scores * 1.001)) if not check.ok]
    assert failed == ["thin factors = traces, distance by distance"]


def test_folding_is_held_to_the_norm_itself(monkeypatch):
    model = tiny_model("gpt2")
    whole = composition.readers

    def forgetful(model, layer, dtype):
        return replace(whole(model, layer, dtype), W_K=parts.attention(model, layer, dtype).W_K)

    monkeypatch.setattr(composition, "readers", forgetful)
    spec, out = run(model)
    assert "folded = normed" in [check.name for check in verify(spec, out) if not check.ok]


def test_heads_that_are_not_turned_are_no_null(monkeypatch):
    model = tiny_model("gpt2")
    monkeypatch.setattr(composition, "random_writes", lambda writes, generator, width: writes[:, :1] * 4)
    spec, out = run(model)
    assert "turned at random: the mean square is 1/d" in [check.name for check in verify(spec, out) if not check.ok]


# -- what the author may write


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"reader": "L3H0"}, "reader", "L0H0 to L2H3"),
        ({"writer": "L0H4"}, "writer", "L0H0 to L2H3"),
        ({"reader": "L0H1"}, "reader", "no head before it"),
        ({"writer": "L2H1"}, "writer", "no head after it"),
        ({"distance": 5}, "distance", "looks back 4 tokens"),
    ],
)
def test_what_the_model_has_not_is_refused_with_the_mend(fields, field, says):
    with pytest.raises(NoteError, match=says) as error:
        run(tiny_model("mistral"), **fields)
    assert error.value.field == field


def test_one_layer_and_too_many_heads_are_refused():
    with pytest.raises(NoteError, match="one layer"):
        run(tiny_model("gpt2", n_layer=1))
    model = tiny_model("gpt2")
    with pytest.raises(NoteError, match="2100 heads"):
        run(replace(model, shape=replace(model.shape, layers=70, heads=30)))


def test_an_order_that_cannot_be_is_refused():
    with pytest.raises(ValidationError, match="L2H1 writes for later layers only"):
        Spec(writer="L2H1", reader="L2H3")


def test_what_is_left_open_is_the_strongest_by_keys():
    model = tiny_model("qwen2")
    _, out = run(model)
    known = out.scores[K].nan_to_num(-1)
    w, r = divmod(int(known.argmax()), 12)
    assert (out.writer, out.reader) == (f"L{w // 4}H{w % 4}", f"L{r // 4}H{r % 4}")
    spec, other = run(model, reader="L2H1")
    assert other.writer == f"L{int(known[:, 9].argmax()) // 4}H{int(known[:, 9].argmax()) % 4}"
    assert value(spec, other, "k_rank").value == 1
    assert value(spec, other, "k_rank").null == 4.5
    spec, third = run(model, writer="L1H2")
    assert third.reader == f"L2H{int(known[6, 8:].argmax())}"
    assert value(spec, third, "q_rank").value == 1 + int(
        (out.scores[Q, :8, 8 + int(third.reader[3])] > out.scores[Q, 6, 8 + int(third.reader[3])]).sum()
    )


# -- numbers and figures as a reader gets them


def test_metrics_are_those_promised_and_within_their_range():
    spec, out = run(tiny_model("qwen3"), threshold=1.1)
    metrics = measure(spec, out)
    assert [metric.name for metric in metrics] == [quantity.name for quantity in EXPERIMENT.metrics]
    for metric, quantity in zip(metrics, EXPERIMENT.metrics, strict=True):
        for number in metric.value if isinstance(metric.value, tuple) else (metric.value,):
            assert quantity.range[0] <= number <= quantity.range[1], metric.name
        assert metric.null is not None
        assert metric.n
    there = out.scores[V][out.scores[V].isfinite()]
    assert value(spec, out, "v_share").value == pytest.approx(float((there > 1.1 / math.sqrt(48)).double().mean()))


@pytest.mark.parametrize(("family", "fields"), [("qwen3", {"reader": "L1H0"}), ("gpt2", {"threshold": 9.0})])
def test_figures_say_what_they_show_and_are_small(family, fields):
    spec, out = run(tiny_model(family), **fields)
    drawings = draw(spec, out)
    assert list(drawings) == list(EXPERIMENT.figures)
    for drawing in drawings.values():
        figure = render(drawing)
        assert len(figure.content) < 500_000
        assert not re.search(r"\bnan\b|\binf\b", drawing.alt)
        assert ("frozen" in drawing.alt) == (family == "qwen3")


def test_as_many_heads_as_a_large_model_has_stay_a_small_figure():
    spec, out = run(tiny_model("gpt2"))
    layers, heads = 32, 32
    count = layers * heads
    scores = 0.02 + 0.01 * torch.rand(3, count, count, generator=torch.Generator().manual_seed(0))
    earlier = torch.arange(count)[:, None] // heads < torch.arange(count) // heads
    scores = scores.masked_fill(~earlier, math.nan)
    large = out._replace(layers=layers, heads=heads, scores=scores, reader="L31H31", writer="L0H0")
    assert len(render(draw(spec, large)["graph"]).content) < 500_000


def test_what_it_needs_is_said_and_grows_with_the_model():
    small = needs(Spec(), tiny_model("llama").shape)
    shape = replace(
        tiny_model("llama").shape, layers=32, heads=32, kv_heads=8, d_head=128, d_model=4096, bytes=16 * 10**9
    )
    large = needs(Spec(), shape)
    assert small.bytes < 10**7
    assert 16e9 < large.bytes < 20e9  # 8 B in bfloat16: beside the weights no more than what all heads write
    assert small.seconds < 10 < large.seconds < 7200
    assert needs(Spec(weights="shuffled"), shape).bytes > 32e9


# -- known answers on trained models


def roles(name, period=30, batch=4):
    """Of every head: the mean weight on the token before, and on the one behind the last time that this one came."""
    model = load(name)
    generator = torch.Generator().manual_seed(0)
    stretch = torch.randint(model.shape.d_vocab, (batch, period), generator=generator)
    layers = [Site("pattern", layer) for layer in range(model.shape.layers)]
    found = trace(model, torch.cat([stretch, stretch], 1), layers)
    back = torch.cat([found[site].diagonal(-1, 2, 3).mean((0, 2)) for site in layers])
    again = torch.cat([found[site].diagonal(1 - period, 2, 3).mean((0, 2)) for site in layers])
    return model, back, again


@pytest.mark.model
def test_the_strongest_previous_token_head_feeds_the_keys_of_the_strongest_induction_heads():
    model, back, again = roles("smollm2-135m")
    _, out = run(model)
    looks_back, null = int(back.argmax()), out.width**-0.5
    for head in again.argsort(descending=True)[:4].tolist():
        keys = out.scores[K, :, head].nan_to_num(-1)
        assert int((keys > keys[looks_back]).sum()) < 2, head
        assert keys[looks_back] > 3 * null
        assert out.scores[Q, looks_back, head] < 1.5 * null  # its queries read something else


@pytest.mark.model
def test_a_toys_induction_heads_all_read_its_previous_token_head_by_their_keys():
    model, back, again = roles("toy/attn-only-2l", batch=32)
    spec, out = run(model, writer=f"L0H{int(back[:4].argmax())}")
    for head in (again[4:] > 0.4).nonzero().flatten().tolist():
        keys = out.scores[K, :4, 4 + head]
        assert int(keys.argmax()) == int(back[:4].argmax())
        assert keys.max() > float(out.by_chance[K].max())
    assert value(spec, out, "k_rank").value == 1
