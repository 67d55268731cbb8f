"""Computing in superposition: its measures on nets made by hand, checks on any spec and on what is wrong, figures."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.drawings import assert_whole
from vaultlab.experiment import Bench
from vaultlab.experiments import computing_in_superposition
from vaultlab.experiments.computing_in_superposition import (
    EXPERIMENT,
    Spec,
    compute,
    draw,
    features_per_neuron,
    measure,
    rises,
    verify,
)
from vaultlab.models.absolute import Net, unshared
from vaultlab.models.autoencoder import Toy

BENCH = Bench(torch.device("cpu"), torch.float32, lambda name: pytest.fail("no model is wanted"))
QUICK = {"steps": 40, "seeds": 2, "batch": 64}


def run(**fields):
    spec = Spec(**{**QUICK, **fields})
    return spec, compute(spec, BENCH)


def numbers(spec, out):
    return {metric.name: metric for metric in measure(spec, out)}


def test_a_net_made_by_hand_is_measured_right():
    """Two neurons for |x₁|, one for the right sides of x₂ and x₃ alike, one that does nothing."""
    W_in = torch.tensor([[2.0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]], dtype=torch.float64)
    W_out = torch.tensor([[0.5, 0, 0], [1, 0, 0], [-3, 0.8, 0.8], [0, 0, 0]], dtype=torch.float64)
    net = Net(W_in, W_out, torch.tensor([0.0, 0.1, -0.2], dtype=torch.float64))
    assert features_per_neuron(net).tolist() == pytest.approx([1, 1, 2, 0])
    assert net.strengths()[2].tolist() == pytest.approx([0, 0.8, 0.8])  # what it pushes down it does not carry
    right, left = rises(net)
    assert right.tolist() == pytest.approx([1, 0.8, 0.6])
    assert left.tolist() == pytest.approx([1, 0, 0])


def test_an_answer_that_never_moves_is_no_feature_computed():
    """The mean of a dense feature is ½: an output that stands there has computed nothing."""
    net = unshared(Toy(5, 4, 1.0, True), 0.0)
    assert (rises(net).amin(0) >= 0.5).tolist() == [True, True, False, False, False]
    assert net(torch.eye(5, dtype=torch.float64)).diagonal().tolist() == pytest.approx([1, 1, 0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 1, "seeds": 1},
        {"features": 2, "hidden": 1, "sparsity": 0.999},
        {"features": 3, "hidden": 9, "sparsity": 0},
        {"features": 30, "hidden": 7, "importance": 1.0},
        {"learning_rate": 1.0, "batch": 16},
        {"threshold": 1.0},
    ],
)
def test_the_checks_hold_and_figures_are_whole_for_every_spec(fields):
    spec, out = run(**fields)
    assert [check for check in verify(spec, out) if not check.ok] == []
    for metric in measure(spec, out):
        quantity = next(q for q in EXPERIMENT.metrics if q.name == metric.name)
        values = np.ravel(metric.value)
        assert np.all((quantity.range[0] <= values) & (values <= quantity.range[1] + 1e-9))
    figures = draw(spec, out)
    assert list(figures) == list(EXPERIMENT.figures)
    for drawing in figures.values():
        assert_whole(drawing)


def test_an_exact_unshared_net_has_nothing_to_be_compared_with():
    assert "loss_by_unshared" not in numbers(*run(features=3, hidden=6))
    found = numbers(*run(features=3, hidden=5))
    assert found["loss_by_unshared"].value == pytest.approx(found["loss"].value / found["unshared_loss"].value)


def test_numbers_are_those_of_the_seed_with_the_lowest_loss():
    spec, out = run(seeds=4, steps=200)
    found = numbers(spec, out)
    best = int(np.argmin(found["loss"].seeds))
    for metric in found.values():
        if metric.seeds:
            assert metric.value == metric.seeds[best]
    assert found["features_per_neuron"].value == pytest.approx(np.mean(found["neuron_features"].value))
    assert found["loss"].interval[0] < found["loss"].value < found["loss"].interval[1]


def test_the_checks_fail_where_something_is_wrong(monkeypatch):
    def failed(**fields):
        spec, out = run(**fields)
        return [check.name for check in verify(spec, out) if not check.ok]

    assert failed() == []
    right = Net.linear
    monkeypatch.setattr(Net, "linear", lambda net, x: right(net._replace(b=0 * net.b), x))
    assert "gradient by hand = autograd" in failed(steps=300)
    assert "unshared loss = that of the net itself" in failed(steps=300)
    monkeypatch.setattr(Net, "linear", lambda net, x: (x @ net.W_in).abs() @ net.W_out.tanh() + net.b[..., None, :])
    assert "scaling a neuron changes nothing" in failed(steps=300)
    monkeypatch.setattr(Net, "linear", right)
    monkeypatch.setattr(computing_in_superposition, "unshared_loss", lambda toy, sparsity: 0.01)
    assert failed() == ["unshared loss = that of the net itself"]
    monkeypatch.undo()
    spec, out = run()
    monkeypatch.setattr(computing_in_superposition, "features_per_neuron", lambda net: net.strengths().sum(-1))
    assert [check.name for check in verify(spec, out) if not check.ok] == ["1 ≤ features per neuron ≤ n"]


def test_fields_are_closed_strict_and_ranged():
    assert Spec(sparsity="90%") == Spec()
    for wrong in ({"features": 1}, {"hidden": 0}, {"sparsity": 1.0}, {"activation": "relu"}):
        with pytest.raises(ValidationError):
            Spec(**wrong)
