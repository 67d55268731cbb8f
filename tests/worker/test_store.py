"""The store gives back what was put in, whole, or nothing."""

import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from vaultlab.errors import RunError
from vaultlab.result import Check, Failure, Figure, Metric, Result
from vaultlab.worker.store import Store, settled


class Out(NamedTuple):
    weights: torch.Tensor
    half: torch.Tensor
    names: Any
    count: int


KEY = "ab" * 32


def an_out() -> Out:
    whole = torch.arange(6.0).reshape(2, 3)
    return settled(Out(whole.T, whole[0].to(torch.bfloat16), ["·a", ("b", 1.5, None)], 3))


def a_result(key: str = KEY) -> Result:
    figures = {"one": Figure("svg", b"<svg/>", "one"), "two": Figure("png", b"\x89PNG\x00", "two")}
    metrics = (Metric("loss", 0.25, seeds=(0.25, 0.5)), Metric("d", (0.1, float("inf"))))
    return Result("", key, False, metrics, (Check("c", 1e-7, 1e-5),), figures, data={"a": [1]}, provenance={"s": 1})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def files(store: Store) -> list[Path]:
    return sorted(path for path in store.root.rglob("*") if path.is_file())


def test_tensors_come_back_with_their_types_and_values(store: Store) -> None:
    out = an_out()
    store.put_out(KEY, out, {"device": "cpu"})
    back, provenance = store.out(KEY, Out) or (None, None)
    assert provenance == {"device": "cpu"}
    assert back is not None
    assert torch.equal(back.weights, out.weights)
    assert back.half.dtype == torch.bfloat16
    assert back[2:] == out[2:] == (("·a", ("b", 1.5, None)), 3)


def test_a_view_comes_back_with_its_figures(store: Store) -> None:
    store.put_view(KEY, "look", a_result())
    assert store.view(KEY, "look") == a_result()
    assert store.view(KEY, "other") is None
    assert not store.has(KEY)  # a view without what it was made of


def test_a_failure_is_remembered(store: Store) -> None:
    failure = Failure("id", "deterministic", "broke")
    store.put_view(KEY, "look", failure)
    assert store.view(KEY, "look") == failure


def test_another_look_replaces_and_its_numbers_stay(store: Store) -> None:
    for look in ("one", "two-numbers", "two"):
        store.put_view(KEY, look, a_result())
    assert [store.view(KEY, look) is None for look in ("one", "two-numbers", "two")] == [True, False, False]


def test_computing_anew_takes_away_what_was_drawn(store: Store) -> None:
    store.put_view(KEY, "look", a_result())
    store.put_out(KEY, an_out(), {})
    assert store.view(KEY, "look") is None


def test_nothing_is_pickled(store: Store) -> None:
    store.put_out(KEY, an_out(), {})
    store.put_view(KEY, "look", a_result())
    assert {path.suffix for path in files(store)} == {".json", ".safetensors", ".svg", ".png"}


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("harm", ["truncate", "flip", "remove"])
def test_a_damaged_entry_is_absent_and_removed(store: Store, which: int, harm: str) -> None:
    store.put_out(KEY, an_out(), {})
    store.put_view(KEY, "look", a_result())
    part = "out" if which < 2 else "views"
    victim = [path for path in files(store) if part in path.parts][which % 2]
    content = victim.read_bytes()
    if harm == "remove":
        victim.unlink()
    else:
        changed = content[:-1] if harm == "truncate" else content[:-1] + bytes([content[-1] ^ 1])
        victim.write_bytes(changed)
    assert (store.out(KEY, Out) is None) == (part == "out")
    assert (store.view(KEY, "look") is None) == (part == "views")
    assert not victim.parent.exists()


def test_an_out_of_another_shape_is_absent(store: Store) -> None:
    class Other(NamedTuple):
        weights: torch.Tensor

    store.put_out(KEY, an_out(), {})
    assert store.out(KEY, Other) is None


@pytest.mark.parametrize("at", range(12))
def test_killed_at_any_moment_it_is_whole_or_absent(store: Store, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The process ends at the at-th call to the system that writes; what stands then is never half of an entry."""
    calls = 0

    class Killed(BaseException):
        pass

    def counted(real: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at:
                raise Killed
            return real(*args, **more)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(Path, "rename", counted(Path.rename))
        patch.setattr(Path, "mkdir", counted(Path.mkdir))
        try:
            store.put_out(KEY, an_out(), {"n": 1})
            store.put_view(KEY, "look", a_result())
        except Killed:
            pass
    again = Store(store.root)
    out, view = again.out(KEY, Out), again.view(KEY, "look")
    assert out is None or torch.equal(out[0].weights, an_out().weights)
    assert view is None or view == a_result()
    again.put_out(KEY, an_out(), {"n": 2})
    assert (again.out(KEY, Out) or (None, {}))[1] == {"n": 2}


def test_what_a_killed_worker_left_is_swept_up_after_an_hour(store: Store) -> None:
    for name, age_s in ((".old", 7200), (".new", 60)):
        (store.root / name).mkdir(parents=True)
        os.utime(store.root / name, (time.time() - age_s,) * 2)
    store.put_view(KEY, "look", a_result())
    assert not (store.root / ".old").exists()
    assert (store.root / ".new").exists()


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    big = Out(torch.zeros(25_000), torch.zeros(1), (), 0)
    store = Store(tmp_path, bound_bytes=350_000)
    for name in "abc":
        store.put_out(name, big, {})
        os.utime(tmp_path / name, (time.time() - 100 + ord(name),) * 2)
    assert store.out("a", Out) is not None  # and so it is used now
    store.put_out("d", big, {})
    assert {name: store.has(name) for name in "abcd"} == {"a": True, "b": False, "c": True, "d": True}
    assert store.used_bytes() <= 350_000


def test_no_room_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        store.put_out(KEY, an_out(), {})
    assert files(store) == []


def test_the_data_of_a_result_is_found_by_its_key_alone(store: Store, tmp_path: Path) -> None:
    assert store.data(KEY) is None
    store.put_view(KEY, "look-numbers", replace(a_result(), data={}))
    assert store.data(KEY) is None
    store.put_view(KEY, "look", a_result())
    assert store.data(KEY) == {"a": [1]}
    outside = Store(tmp_path / "outside")
    outside.put_view(KEY, "look", a_result())
    for other in (f"../outside/{KEY}", "..", "", ".", KEY.upper(), f"{KEY}/", str(tmp_path / "outside" / KEY)):
        assert store.data(other) is None, "a key that a note says is no path"
    assert outside.data(KEY) is not None, "and nothing there is touched"


def test_forget(store: Store) -> None:
    store.put_out(KEY, an_out(), {})
    assert store.forget([KEY, "cd" * 32]) == 1
    assert not store.has(KEY)


def test_two_workers_at_once(tmp_path: Path) -> None:
    """Both write and read the same keys; nobody ever sees half of an entry, and nobody fails."""
    faults: list[BaseException] = []

    def work() -> None:
        store = Store(tmp_path)
        try:
            for turn in range(30):
                key = f"key{turn % 3}"
                store.put_out(key, an_out(), {"turn": turn})
                found = store.out(key, Out)
                assert found is None or torch.equal(found[0].weights, an_out().weights)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert all(Store(tmp_path).out(f"key{n}", Out) is not None for n in range(3))
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_manifest_is_json(store: Store) -> None:
    store.put_view(KEY, "look", a_result())
    manifest = json.loads((store.root / KEY / "views" / "look" / "manifest.json").read_text())
    assert set(manifest) == {"facts.json", "one.svg", "two.png"}
