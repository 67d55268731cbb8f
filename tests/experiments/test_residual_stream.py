"""The residual stream: a second implementation with plain loops, whole matrices, planted writers, the traps."""

import math
import re
from dataclasses import replace

import pytest
import torch

from tests.tiny import FAMILIES, TEXT, tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments.residual_stream import EXPERIMENT, Spec, compute, draw, measure, needs, verify
from vaultlab.models import parts, stream, virtual
from vaultlab.models.load import assemble
from vaultlab.models.toys import TOYS, fresh, tokenizer
from vaultlab.models.trace import trace
from vaultlab.plots.style import render
from vaultlab.result import Text

SENTENCE = TEXT[:60]


def run(model, text=SENTENCE, **fields):
    spec = Spec(model="tiny", text=text, **fields)
    bench = Bench(torch.device("cpu"), torch.float32, lambda name: model, {"text": Text("", "0", (("", text),))})
    return spec, compute(spec, bench)


def value(spec, out, name):
    return next(metric for metric in measure(spec, out) if metric.name == name)


def failed(spec, out):
    return [check.name for check in verify(spec, out) if not check.ok]


def toy(name="toy/attn-only-2l"):
    return assemble("toy", "0", fresh(TOYS[name], torch.Generator().manual_seed(0)), tokenizer())


def found_in(model, text=SENTENCE):
    found = trace(model, model.tokens(text).ids[None], stream.sites(model.shape))
    return {site: one[0].double() for site, one in found.items()}


# -- the same numbers, written down again


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_shares_and_norms_are_those_of_plain_loops(family: str) -> None:
    model = tiny_model(family)
    spec, out = run(model)
    found = found_in(model)
    writes = list(stream.written(found, model.shape))
    for at in range(len(out.tokens)):
        x = torch.zeros(48, dtype=torch.float64)
        last = sum(write[at].double() for write in writes)
        for place, write in enumerate(writes):
            c = write[at].double()
            assert float(out.shares[place, at]) == pytest.approx(float(c @ last / (last @ last)), rel=1e-3, abs=1e-5)
            if place:
                assert float(out.relative[place, at]) == pytest.approx(float(c.norm() / x.norm()), rel=1e-4)
                cosine = float(c @ x / (c.norm() * x.norm()))
                assert float(out.cosine[place, at]) == pytest.approx(cosine, rel=1e-3, abs=1e-5)
            x = x + c
        assert float(out.norms[-1, at]) == pytest.approx(float(x.norm()), rel=1e-5)
    kept = out.kept
    growth = (out.norms[-1] / out.norms[0])[kept].mean()
    assert value(spec, out, "growth").value == pytest.approx(float(growth), rel=1e-6)
    assert value(spec, out, "growth").n == int(kept.sum())
    total = sum(value(spec, out, name).value for name in ("embedding_share", "attention_share", "mlp_share"))
    assert total == pytest.approx(1, abs=1e-5)
    assert sum(value(spec, out, "write_shares").value) == pytest.approx(1, abs=1e-5)
    nulls = sum(value(spec, out, name).null for name in ("embedding_share", "attention_share", "mlp_share"))
    assert nulls == pytest.approx(1)


def centre(norm):
    eye = torch.eye(48, dtype=torch.float64)
    return eye - 1 / 48 if norm.kind == "layer" else eye


def whole(model, layer):
    """Writers and readers of one layer as whole matrices: read is [d_model, …], written [d_model, …]."""
    wide = torch.float64
    attn, norm = parts.attention(model, layer, wide), parts.attn_norm(model, layer, wide)
    mlp, mlp_norm = parts.mlp(model, layer, wide), parts.mlp_norm(model, layer, wide)
    D, D_mlp = centre(norm) @ torch.diag(norm.gain), centre(mlp_norm) @ torch.diag(mlp_norm.gain)
    q = 1 if attn.q_norm is None else attn.q_norm.gain
    k = 1 if attn.k_norm is None else attn.k_norm.gain
    heads = range(len(attn.W_Q))
    QK = [torch.diag(norm.gain) @ (attn.W_Q[h] * q) @ (attn.W_K[h] * k).T @ torch.diag(norm.gain) for h in heads]
    OV = [D @ attn.W_V[h] @ attn.W_O[h] for h in heads]
    free = [torch.diag(norm.gain) @ attn.W_V[h] @ attn.W_O[h] for h in heads]
    keys = (torch.diag(mlp_norm.gain) @ mlp.W_in).norm(dim=0)
    values = mlp.W_out.norm(dim=1)
    P = centre(norm)
    return {
        "attn writes": torch.cat([one.T for one in OV], 1),
        "mlp writes": mlp.W_out.T * keys,
        "attn reads": [
            torch.cat([P @ one for one in QK], 1),
            torch.cat([P @ one.T for one in QK], 1),
            torch.cat([P @ one for one in free], 1),
        ],
        "mlp reads": [(D_mlp @ mlp.W_in) * values, *([] if mlp.W_gate is None else [D_mlp @ mlp.W_gate])],
    }


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_virtual_weights_are_those_of_whole_matrices(family: str) -> None:
    model = tiny_model(family)
    _, out = run(model)
    first, second = whole(model, 0), whole(model, 2)
    for writer in ("attn", "mlp"):
        for reader in ("attn", "mlp"):
            W = first[f"{writer} writes"]
            squares = [
                float((R.T @ W).square().sum() / (R.square().sum() * W.square().sum()))
                for R in second[f"{reader} reads"]
            ]
            found = out.virtual[
                out.readers.index(f"{'MLP' if reader == 'mlp' else reader} 2"),
                out.writers.index(f"{'MLP' if writer == 'mlp' else writer} 0"),
            ]
            assert float(found) == pytest.approx(math.sqrt(sum(squares) / len(squares)), rel=1e-4)
    E = parts.embedding(model, torch.float64)
    W_E = E.W_E - E.W_E.mean(0)
    G = W_E.T @ W_E / len(W_E)
    if E.W_pos is not None:
        W_pos = E.W_pos - E.W_pos.mean(0)
        G = G + W_pos.T @ W_pos / len(W_pos)
    norm, W_U = parts.final_norm(model, torch.float64), parts.unembedding(model, torch.float64).W_U
    R = centre(norm) @ torch.diag(norm.gain) @ (W_U - W_U.mean(1, keepdim=True))
    expected = torch.sqrt((R.T @ G @ R).trace() / (G.trace() * R.square().sum()))
    assert float(out.virtual[-1, 0]) == pytest.approx(float(expected), rel=1e-4)


def test_a_writer_turned_at_random_has_one_by_the_root_of_the_dimensions() -> None:
    generator = torch.Generator().manual_seed(0)
    d = 24
    spectrum = torch.diag(torch.logspace(0, 3, d, dtype=torch.float64))
    G = torch.rand(d, d, generator=generator, dtype=torch.float64)
    G = G @ G.T
    turns = torch.linalg.qr(torch.randn(4000, d, d, generator=generator, dtype=torch.float64)).Q
    found = virtual.virtual(turns @ spectrum @ turns.mT, (G,))
    assert float(found.square().mean()) == pytest.approx(1 / d, rel=0.05)


def test_subspaces_share_all_nothing_or_their_part_of_the_room() -> None:
    generator = torch.Generator().manual_seed(0)
    U = torch.linalg.qr(torch.randn(300, 40, 5, generator=generator)).Q
    mixed = U[0] @ torch.linalg.qr(torch.randn(5, 5, generator=generator)).Q
    eye = torch.eye(40)
    found = stream.overlaps(torch.stack([U[0], mixed, eye[:, :5], eye[:, 5:10]]))
    assert float(found[0, 1]) == pytest.approx(1, abs=1e-5)
    assert float(found[2, 3]) == 0
    shared = stream.overlaps(U)
    apart = ~torch.eye(300, dtype=torch.bool)
    assert float(shared[apart].mean()) == pytest.approx(5 / 40, rel=0.02)


def test_a_writer_of_few_directions_sets_how_many_are_compared() -> None:
    model = tiny_model("llama")
    _, out = run(model, "the cat the cat the cat the cat", subspace=12)
    assert out.k <= len(set(out.tokens))
    assert torch.allclose(out.overlap.diagonal(), torch.ones(7), atol=1e-4)


# -- planted


@torch.no_grad()
def test_a_reader_of_what_one_writer_writes_is_found() -> None:
    model = tiny_model("llama")
    layers = model.net.model.layers
    e = torch.zeros(48)
    e[7] = 1
    layers[0].mlp.down_proj.weight.copy_(e[:, None] * layers[0].mlp.down_proj.weight[7])
    for read in (layers[2].mlp.up_proj, layers[2].mlp.gate_proj):
        read.weight.copy_(read.weight[:, 7:8] * e)
    _, out = run(model)
    row, column = divmod(int(out.virtual.nan_to_num(0).argmax()), len(out.writers))
    assert (out.readers[row], out.writers[column]) == ("MLP 2", "MLP 0")
    assert float(out.virtual[row, column]) == pytest.approx(1, abs=1e-5)


@torch.no_grad()
def test_a_writer_that_undoes_another_has_a_share_below_nothing() -> None:
    model = tiny_model("gpt2")
    blocks = model.net.transformer.h
    big = torch.zeros(48)
    big[3] = 300
    blocks[0].mlp.c_proj.bias += big
    blocks[2].mlp.c_proj.bias -= 0.5 * big
    spec, out = run(model)
    shares = dict(zip(out.writers, value(spec, out, "write_shares").value, strict=True))
    assert shares["MLP 0"] == pytest.approx(2, abs=0.2)
    assert shares["MLP 2"] == pytest.approx(-1, abs=0.2)
    cosines = dict(zip(out.writers[1:], value(spec, out, "write_cosines").value, strict=True))
    assert cosines["MLP 2"] < -0.9


# -- checks hold, and can fail


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_checks_hold_in_every_family_and_dtype(family: str, dtype: torch.dtype) -> None:
    spec, out = run(tiny_model(family, dtype=dtype))
    assert [(check.name, check.residual) for check in verify(spec, out) if not check.ok] == []


@pytest.mark.parametrize("field", [name for name in EXPERIMENT.Out._fields if name.endswith("_residual")])
@pytest.mark.parametrize("broken", [9.0, math.nan])
def test_every_residual_can_fail_its_check(field: str, broken: float) -> None:
    spec, out = run(toy(), "abcabcabcabc")
    damaged = out._replace(**{field: torch.full_like(getattr(out, field), broken)})
    assert len(failed(spec, damaged)) == 1


@torch.no_grad()
def test_the_hidden_state_after_the_norm_is_not_the_sum_of_the_writers() -> None:
    model = tiny_model("llama")
    found, kept = found_in(model), torch.ones(len(model.tokens(SENTENCE).ids), dtype=torch.bool)
    assert stream.read(found, model.shape, kept, 4).sum_residual < 1e-5
    hidden = model.net(model.tokens(SENTENCE).ids[None], output_hidden_states=True).hidden_states[-1][0]
    wrong = {**found, stream.sites(model.shape)[-1]: hidden.double()}
    assert stream.read(wrong, model.shape, kept, 4).sum_residual > 0.1


def test_a_writer_left_out_shows() -> None:
    model = tiny_model("gpt_neox")
    found, kept = found_in(model), torch.ones(len(model.tokens(SENTENCE).ids), dtype=torch.bool)
    site = next(site for site in found if site.name == "attn" and site.layer == 1)
    assert stream.read({**found, site: 0 * found[site] + 1e-9}, model.shape, kept, 4).sum_residual > 0.01


def test_only_pairs_that_meet_are_counted() -> None:
    seen = stream.sees(tiny_model("llama").shape)
    beside = stream.sees(tiny_model("gpt_neox").shape)
    writers, readers = (f(tiny_model("llama").shape) for f in (stream.writers_of, stream.readers_of))
    row, column = readers.index(stream.Place("mlp", 1)), writers.index(stream.Place("attn", 1))
    assert seen[row, column]
    assert not beside[row, column]  # they read the same stream
    assert not seen[readers.index(stream.Place("attn", 1)), writers.index(stream.Place("mlp", 1))]
    _, out = run(tiny_model("gpt_neox"))
    assert torch.equal(~out.virtual.isnan(), beside)


@torch.no_grad()
def test_norms_of_bare_weights_change_with_the_gauge_and_virtual_weights_do_not() -> None:
    model = tiny_model("llama")
    attn, norm = parts.attention(model, 1), parts.attn_norm(model, 1)
    mlp, mlp_norm = parts.mlp(model, 1), parts.mlp_norm(model, 1)
    turned, scaled = virtual.in_another_gauge(attn, mlp, torch.Generator().manual_seed(0))
    x = torch.randn(9, 48, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(mlp(x), scaled(x), atol=1e-3)
    assert torch.allclose(attn(x), turned(x), atol=1e-3)
    one, other = virtual.grams(attn, norm, mlp, mlp_norm), virtual.grams(turned, norm, scaled, mlp_norm)
    for mine, theirs in zip([one.attn_writes, one.mlp_writes], [other.attn_writes, other.mlp_writes], strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-4 * float(mine.abs().max()))

    def bare(values, reads) -> float:
        """W_O alone against W_in alone, whatever stands on the other side."""
        W, R = values.W_O.flatten(0, 1), reads.W_in
        return float((W @ R).norm() / (W.norm() * R.norm()))

    assert abs(bare(turned, scaled) / bare(attn, mlp) - 1) > 0.01


def test_a_reader_behind_a_layer_norm_does_not_see_the_mean() -> None:
    model = tiny_model("gpt2")
    G = virtual.grams_of(model, 1, torch.float64)
    ones = torch.ones(48, dtype=torch.float64)
    for one in (*G.attn_reads, *G.mlp_reads):
        assert float((one @ ones).abs().max()) < 1e-9 * float(one.abs().max())
    G = virtual.grams_of(tiny_model("llama"), 1, torch.float64)
    assert float((G.attn_reads[0] @ ones).norm()) > 0.01 * float(G.attn_reads[0].norm())


def test_a_linear_net_is_the_sum_of_all_its_paths_and_of_no_fewer() -> None:
    A = 0.5 * torch.randn(4, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert stream.paths_residual(A) < 1e-14
    eye = torch.eye(6, dtype=torch.float64)
    product = (eye + A[0]) @ (eye + A[1]) @ (eye + A[2]) @ (eye + A[3])
    direct_only = eye + A.sum(0)
    assert (product - direct_only).abs().max() > 0.1
    model = toy()
    found = found_in(model, "abcabcabc")
    assert stream.along_paths(model, found, torch.float64) < 1e-6
    site = next(site for site in found if site.name == "resid_pre" and site.layer == 1)
    melted = {**found, site: found[site].flip(0)}  # another pattern than the one that was frozen
    assert stream.along_paths(model, melted, torch.float64) > 1e-3


def test_paths_of_the_whole_run_are_followed_where_there_is_nothing_but_attention() -> None:
    spec, out = run(toy(), "abcabcabcabc")
    assert failed(spec, out) == []
    assert "the stream is the sum of its paths" in [check.name for check in verify(spec, out)]
    assert "mlp_share" not in [metric.name for metric in measure(spec, out)]
    assert "MLP" not in draw(spec, out)["norms"].alt
    spec, out = run(tiny_model("llama"))
    assert "the stream is the sum of its paths" not in [check.name for check in verify(spec, out)]


# -- massive tokens, what the author may write, what a reader gets


@torch.no_grad()
def test_a_massive_token_is_left_out_of_all_numbers_and_listed() -> None:
    model = tiny_model("gpt2")
    ids = model.tokens(SENTENCE).ids
    model.net.transformer.wte.weight[ids[4]] *= 200
    spec, out = run(model)
    assert not out.kept[4]
    assert value(spec, out, "left_out").value == pytest.approx(float((ids == ids[4]).double().mean()))
    assert max(value(spec, out, "massive_norm").value) > 5
    assert out.tokens[4].replace("·", "") in draw(spec, out)["writers"].alt.partition("Left out")[2]
    loud = out._replace(shares=out.shares.masked_fill(~out.kept, 1e6), norms=out.norms.masked_fill(~out.kept, 1e6))
    for one, other in zip(measure(spec, out), measure(spec, loud), strict=True):
        assert one.value == other.value


def test_a_text_of_a_word_is_refused() -> None:
    with pytest.raises(NoteError) as error:
        run(tiny_model("llama"), "T")
    assert error.value.field == "text"


def test_metrics_and_figures_are_those_promised() -> None:
    spec, out = run(tiny_model("qwen2"), "a $b$ <c>\n中🙂" + SENTENCE)
    assert [metric.name for metric in measure(spec, out)] == [quantity.name for quantity in EXPERIMENT.metrics]
    drawings = draw(spec, out)
    assert list(drawings) == list(EXPERIMENT.figures)
    for drawing in drawings.values():
        assert render(drawing).content
        assert re.search(r"\d", drawing.alt)
        assert not re.search(r"\bnan|\binf", drawing.alt)


def test_what_is_kept_and_needed_of_large_models() -> None:
    shape = replace(
        tiny_model("llama").shape, layers=80, heads=64, d_model=8192, d_mlp=28672, d_vocab=128256,
        parameters=70 * 10**9, bytes=140 * 10**9,
    )  # fmt: skip
    writers = len(stream.writers_of(shape))
    assert 4 * writers * 512 * 4 + 2 * writers**2 * 4 + 81 * 512 * 4 < 50_000_000
    assert needs(Spec(), shape).bytes > shape.bytes + writers * shape.d_model**2 * 4
    assert needs(Spec(tokens=512), shape).bytes > needs(Spec(), shape).bytes
    assert needs(Spec(tokens=512), shape).seconds > needs(Spec(), shape).seconds
