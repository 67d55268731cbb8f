"""Attention circuits: the vocabulary × vocabulary matrices written out on tiny models, planted heads, symmetries."""

import math
import re
from dataclasses import replace

import pytest
import torch

from tests.tiny import FAMILIES, tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments.attention_circuits import EXPERIMENT, Spec, compute, draw, measure, needs, verify
from vaultlab.models import circuits, parts
from vaultlab.models.load import load
from vaultlab.models.trace import Site, trace
from vaultlab.models.weights import Rotary
from vaultlab.plots.style import render

DISTANCES = 5  # the tiny models' windows see no more
LAYER, HEAD = 1, 3


def run(model, **fields):
    spec = Spec(model="tiny", **{"distances": DISTANCES, "head": f"L{LAYER}H{HEAD}", **fields})
    return spec, compute(spec, Bench(torch.device("cpu"), torch.float32, lambda name: model))


def value(spec, out, name):
    return next(metric for metric in measure(spec, out) if metric.name == name)


# -- the same numbers from the whole matrices, in float64


def matrices(model, *, fold=True, centre=True):
    """W_E, W_Q, W_K, W_V, W_O and W_U of one head as the circuits meet them; the wrong ways by the options."""
    attn, norm = parts.attention(model, LAYER, torch.float64), parts.attn_norm(model, LAYER, torch.float64)
    final, d = parts.final_norm(model, torch.float64), model.shape.d_model
    less_mean = torch.eye(d, dtype=torch.float64) - (1 / d if norm.kind == "layer" else 0)
    gain, last = (torch.diag(one.gain) if fold else torch.eye(d, dtype=torch.float64) for one in (norm, final))
    per_group = model.shape.heads // model.shape.kv_heads
    shared = HEAD // per_group * per_group
    W_E = parts.embedding(model, torch.float64).W_E
    W_E = W_E - W_E.mean(0) if centre else W_E
    W_Q, W_K = less_mean @ gain @ attn.W_Q[HEAD], less_mean @ gain @ attn.W_K[shared]
    if attn.q_norm is not None:
        W_Q, W_K = W_Q * attn.q_norm.gain, W_K * attn.k_norm.gain
    W_V = less_mean @ gain @ attn.W_V[shared]
    return W_E, W_Q, W_K, W_V, attn.W_O[HEAD] @ less_mean, last @ parts.unembedding(model, torch.float64).W_U


def score(W_E, W_V, W_O, W_U):
    values = torch.linalg.eigvals(W_E @ W_V @ W_O @ W_U)
    return float(values.sum().real / values.abs().sum())


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_copying_is_that_of_the_whole_matrix(family, centre):
    model = tiny_model(family)
    W_E, _, _, W_V, W_O, W_U = matrices(model, centre=centre)
    spec, out = run(model, centre=centre)
    assert value(spec, out, "head_copying").value == pytest.approx(score(W_E, W_V, W_O, W_U), abs=1e-4)
    assert float(out.copying[LAYER, HEAD]) == pytest.approx(value(spec, out, "head_copying").value)
    # every token's own place in what the head says of it
    said = W_E @ W_V @ W_O @ W_U
    above = (said > said.diagonal()[:, None]).double().sum(1) / (len(said) - 1)
    everybody = circuits.self_rank(
        model, (LAYER, HEAD), circuits.vocabulary(model, centre, lambda a, b: None), 4096, torch.Generator()
    )
    assert sorted(everybody.tolist()) == pytest.approx(sorted(above.tolist()), abs=2 / len(said))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tokens_score_with_itself_is_that_of_all_pairs(family):
    model = tiny_model(family)
    W_E, W_Q, W_K, *_ = matrices(model)
    attn = parts.attention(model, LAYER, torch.float64)
    _, out = run(model)
    raw = parts.embedding(model, torch.float64).W_E
    raw = raw - raw.mean(-1, keepdim=True) if model.family.name in ("gpt2", "gpt_neox") else raw
    scale = float(raw.square().mean().rsqrt())
    for distance in range(DISTANCES):
        R = torch.eye(model.shape.d_head).double() if attn.rotary is None else attn.rotary.matrix(distance, W_E)
        scores = W_E @ W_Q @ R @ W_K.T @ W_E.T * attn.scale * scale**2
        assert float(out.same_score[distance]) == pytest.approx(float(scores.diagonal().mean()), rel=1e-3, abs=1e-6)
        assert float(out.spread[distance]) == pytest.approx(float(scores.std(correction=0)), rel=1e-3)
    mean = (out.same_score / out.spread).mean()
    assert float(out.same[LAYER, HEAD]) == pytest.approx(float(mean), rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_average_tokens_score_is_that_of_the_layer_itself(family):
    """The model's own attention of one and the same token at every place, at the scale that its norm then has."""
    model = tiny_model(family)
    average = parts.embedding(model, torch.float64).W_E.mean(0)
    norm, attn = parts.attn_norm(model, LAYER, torch.float64), parts.attention(model, LAYER, torch.float64)
    W_pos = parts.embedding(model, torch.float64).W_pos
    rows = average.expand(DISTANCES, -1) + (0 if W_pos is None else W_pos[:DISTANCES])
    scale = float(norm.scale(rows)[0])
    found = circuits.by_distance(attn, norm, rows, scale)[HEAD]
    scores = attn.scores(norm(rows))[HEAD]
    if W_pos is None:
        expected = [float(scores[-1, -1 - distance]) for distance in range(DISTANCES)]
        assert found.tolist() == pytest.approx(expected, rel=1e-4)
    _, out = run(model)
    assert out.average_score.shape == (DISTANCES,)
    assert (attn.b_Q.abs().sum() == 0) or not torch.allclose(
        found, circuits.by_distance(replace(attn, b_Q=torch.zeros_like(attn.b_Q)), norm, rows, scale)[HEAD], rtol=1e-3
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_an_unfolded_gain_gives_other_numbers(family):
    model = tiny_model(family)
    W_E, _, _, W_V, W_O, W_U = matrices(model, fold=False)
    assert abs(score(W_E, W_V, W_O, W_U) - value(*run(model), "head_copying").value) > 1e-3


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_tiled_instead_of_repeated_heads_give_other_numbers(family):
    model = tiny_model(family)
    _, out = run(model)
    attn, said = parts.attention(model, LAYER), circuits.vocabulary(model, True, lambda a, b: None).said
    gain = parts.attn_norm(model, LAYER).gain[:, None]

    def of(W_V):
        return circuits.copying(circuits.eigenvalues(circuits.core(gain * W_V, attn.W_O, said)))

    assert (of(attn.W_V) - out.copying[LAYER]).abs().max() < 1e-4
    assert (of(attn.W_V[::2].repeat(2, 1, 1)) - out.copying[LAYER]).abs().max() > 0.05


# -- closed forms and planted heads


def test_an_identity_copies_exactly_and_its_negative_does_the_contrary():
    generator = torch.Generator().manual_seed(0)
    W_E = torch.randn(40, 12, generator=generator, dtype=torch.float64) + 3
    for W in (W_E, W_E - W_E.mean(0)):  # tied, and centred or not: Σ e_t e_tᵀ has no negative eigenvalue
        said = (W_E - W_E.mean(0)).T @ W if W is not W_E else W_E.T @ W_E
        eye = torch.eye(12, dtype=torch.float64)
        assert float(circuits.copying(circuits.eigenvalues(circuits.core(eye, eye, said)))) == pytest.approx(1)
        assert float(circuits.copying(circuits.eigenvalues(circuits.core(eye, -eye, said)))) == pytest.approx(-1)


def test_bare_gaussian_matrices_score_zero_with_a_known_spread():
    generator = torch.Generator().manual_seed(0)
    for k in (16, 64):
        found = circuits.copying(circuits.eigenvalues(torch.randn(300, k, k, generator=generator)))
        assert abs(float(found.mean())) < 5 * 1.5 / k / math.sqrt(300)
        assert float(found.std()) == pytest.approx(1.5 / k, rel=0.15)


def test_a_rotation_by_a_right_angle_neither_copies_nor_the_contrary():
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    assert float(circuits.copying(circuits.eigenvalues(turn))) == pytest.approx(0)


def test_the_null_is_wider_where_embeddings_do_not_lie_evenly():
    """The bare Gaussian spread is not the null: a shared mean in the embeddings carries the sign of every score."""
    model = tiny_model("llama")
    with torch.no_grad():
        model.net.model.embed_tokens.weight += 1.0
    centred, raw = (value(*run(model, centre=centre), "null_spread").value for centre in (True, False))
    assert raw > 2 * centred
    assert raw > 2 * 1.5 / 16


# -- what must not matter


def invertible(size):
    return torch.eye(size) + 0.3 * torch.randn(size, size, generator=torch.Generator().manual_seed(1))


def test_another_basis_for_values_changes_no_number():
    model, other, lopsided = (tiny_model("llama") for _ in range(3))
    M = invertible(16)
    with torch.no_grad():
        for net, both in ((other.net, True), (lopsided.net, False)):
            for layer in net.model.layers:
                attn = layer.self_attn
                for head in range(2):
                    rows = slice(16 * head, 16 * head + 16)
                    attn.v_proj.weight[rows] = M.T @ attn.v_proj.weight[rows]
                for head in range(4) if both else ():
                    cols = slice(16 * head, 16 * head + 16)
                    attn.o_proj.weight[:, cols] = attn.o_proj.weight[:, cols] @ torch.linalg.inv(M).T
    one, two, three = (run(each)[1] for each in (model, other, lopsided))
    assert (one.copying - two.copying).abs().max() < 1e-3
    assert (one.copying - three.copying).abs().max() > 0.02


def test_only_a_basis_that_commutes_with_the_rotation_changes_no_score_by_distance():
    plane = torch.arange(8)
    re, im = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    C = torch.eye(16)
    C[plane, plane], C[plane, plane + 8], C[plane + 8, plane], C[plane + 8, plane + 8] = re, im, -im, re
    found = [run(tiny_model("mistral"))[1]]
    for M in (C, invertible(16)):
        model = tiny_model("mistral")
        with torch.no_grad():
            for layer in model.net.model.layers:
                attn = layer.self_attn
                for proj, by, heads in ((attn.q_proj, M, 4), (attn.k_proj, torch.linalg.inv(M).T, 2)):
                    for head in range(heads):
                        rows = slice(16 * head, 16 * head + 16)
                        proj.weight[rows] = by.T @ proj.weight[rows]
        found.append(run(model)[1])
    right, same, other = found
    assert torch.allclose(right.same, same.same, rtol=1e-2, atol=1e-3)
    assert torch.allclose(right.average_score, same.average_score, rtol=1e-2, atol=1e-3)
    assert not torch.allclose(right.same, other.same, rtol=1e-2, atol=1e-2)


def test_what_is_added_to_all_logits_moves_no_score_unless_the_mean_is_left_in():
    def copying(shift, centre):
        model = tiny_model("gpt_neox")
        with torch.no_grad():
            model.net.get_output_embeddings().weight += shift * torch.randn(
                48, generator=torch.Generator().manual_seed(3)
            )
            model.net.gpt_neox.embed_in.weight += 0.3
        return run(model, centre=centre)[1].copying

    assert (copying(0, True) - copying(1, True)).abs().max() < 1e-3
    assert (copying(0, False) - copying(1, False)).abs().max() > 0.05


# -- checks hold, and can fail


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_checks_hold_in_every_family_and_dtype(family, dtype):
    spec, out = run(tiny_model(family, dtype=dtype))
    assert [check for check in verify(spec, out) if not check.ok] == []


@pytest.mark.parametrize("field", [name for name in EXPERIMENT.Out._fields if name.endswith("_residual")])
@pytest.mark.parametrize("broken", [0.5, math.nan])
def test_every_residual_can_fail_its_check(field, broken):
    spec, out = run(tiny_model("llama"))
    damaged = out._replace(**{field: torch.full_like(getattr(out, field), broken)})
    assert sum(not check.ok for check in verify(spec, damaged)) == 1
    raw = spec.model_copy(update={"centre": False})
    assert sum(not check.ok for check in verify(raw, damaged)) == (field != "mean_residual")


def test_a_null_with_a_sign_of_its_own_fails_its_check():
    spec, out = run(tiny_model("llama"))
    failed = [check.name for check in verify(spec, out._replace(null=out.null + 0.2)) if not check.ok]
    assert failed == ["a random head's score has the mean 0"]


def test_a_rotation_the_wrong_way_round_fails_its_check(monkeypatch):
    model = tiny_model("llama")
    right = Rotary.matrix
    monkeypatch.setattr(Rotary, "matrix", lambda self, distance, like: right(self, -distance, like))
    spec, out = run(model)
    assert "a score at a distance = queries times keys there" in [c.name for c in verify(spec, out) if not c.ok]


# -- what the author may write, and what a reader gets


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"head": "L3H0"}, "head", "L0H0 to L2H3"),
        ({"head": "L0H4"}, "head", "L0H0 to L2H3"),
        ({"distances": 6}, "distances", "see 5 tokens at most"),
    ],
)
def test_what_the_model_has_not_is_refused_with_the_mend(fields, field, says):
    with pytest.raises(NoteError, match=says) as error:
        run(tiny_model("mistral"), **fields)
    assert error.value.field == field


def test_metrics_are_those_promised_and_within_their_range():
    spec, out = run(tiny_model("qwen3"), head=None)
    assert out.head == "L{}H{}".format(*divmod(int(out.copying.argmax()), 4))
    metrics = measure(spec, out)
    assert [metric.name for metric in metrics] == [quantity.name for quantity in EXPERIMENT.metrics]
    for metric, quantity in zip(metrics, EXPERIMENT.metrics, strict=True):
        for number in metric.value if isinstance(metric.value, tuple) else (metric.value,):
            assert quantity.range[0] <= number <= quantity.range[1], metric.name
        assert metric.n
    rank = value(spec, out, "self_rank")
    assert rank.interval[0] <= rank.value <= rank.interval[1]


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_figures_say_what_they_show_and_are_small(family):
    spec, out = run(tiny_model(family))
    drawings = draw(spec, out)
    assert list(drawings) == list(EXPERIMENT.figures)
    for drawing in drawings.values():
        assert len(render(drawing).content) < 500_000
        assert not re.search(r"\bnan\b|\binf\b", drawing.alt)


def test_what_it_needs_is_said_and_has_no_vocabulary_squared():
    shape = replace(
        tiny_model("llama").shape,
        layers=32,
        heads=32,
        kv_heads=8,
        d_head=128,
        d_model=4096,
        d_vocab=128_256,
        bytes=16 * 10**9,
    )
    assert 16e9 < needs(Spec(), shape).bytes < 18e9
    assert needs(Spec(), shape).seconds < 7200
    assert needs(Spec(weights="shuffled"), shape).bytes > 32e9


# -- known answers on trained models


@pytest.mark.model
def test_in_the_toy_the_head_that_looks_back_is_told_from_its_weights_and_induction_heads_copy():
    model = load("toy/attn-only-2l")
    stretch = torch.randint(64, (32, 30), generator=torch.Generator().manual_seed(0))
    found = trace(model, torch.cat([stretch, stretch], 1), [Site("pattern", layer) for layer in range(2)])
    back = found[Site("pattern", 0)].diagonal(-1, 2, 3).mean((0, 2))
    again = found[Site("pattern", 1)].diagonal(-29, 2, 3).mean((0, 2))
    spec, out = run(model, head=f"L0H{int(back.argmax())}", distances=64)
    assert value(spec, out, "head_distance").value == 1
    assert value(spec, out, "head_reach").value > 10
    assert (out.copying[1][again > 0.4] > 0.95).all()


@pytest.mark.model
def test_centring_narrows_the_null_of_the_language_model():
    model = load("smollm2-135m")
    centred, raw = (circuits.vocabulary(model, centre, lambda a, b: None).said for centre in (True, False))
    heads = circuits.random_heads(model, 3, 60, torch.Generator().manual_seed(0))
    spreads = [
        float(circuits.copying(circuits.eigenvalues(circuits.core(*heads, said))).std()) for said in (centred, raw)
    ]
    assert 0.03 < spreads[0] < 0.15
    assert spreads[1] > 3 * spreads[0]
