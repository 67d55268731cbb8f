"""The words you type, against a real worker: small toy models, one vault."""

import json
import re
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from vaultlab import cli, places
from vaultlab.commands.words import FAILS, USE
from vaultlab.errors import VaultlabError
from vaultlab.vault.journal import lock

SMALL = "features: 2\nhidden: 1\nsparsity: 90%\nsteps: 200\nbatch: 64\nseeds: 2\n"
NOTE = f"""---
tags: [experiment]
---
Two share one.

```vaultlab
superposition: two
{SMALL}expect:
  - represented >= 1
```
"""
WRONG = {
    "field": ("feetures: 3", "`features`"),
    "type": ("features: many", "many"),
    "range": ("features: 100000", "512"),
    "nan": ("sparsity: .nan", "nan"),
    "list": ("features: [3, 4]", "sweep"),
    "huge": ("features: 512\nhidden: 256\nbatch: 65536\nseeds: 64\nsteps: 100000", "limit"),
    "claim": ("expect: [reprezented = 5]", "`represented`"),
    "twice": ("features: 3\nfeatures: 4", "features"),
    "tagged": ("features: !!int 3", "tag"),
    "laughs": ("title: &a ha\ntests: *a", "anchor"),
    "long": ("title: " + "x" * 70_000, "64"),
}


class Typed:
    """What a command printed, and its exit code."""

    def __init__(self, *words: object) -> None:
        found = CliRunner().invoke(cli.app, [str(word) for word in words])
        self.code, self.out, self.error = found.exit_code, found.output, found.exception

    @property
    def said(self) -> str:
        """What went wrong, as `main` would print it."""
        assert isinstance(self.error, VaultlabError), self.out
        return f"{self.error.message} {self.error.hint}"

    @property
    def json(self) -> object:
        return json.loads(self.out)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("STATE", "CACHE", "CONFIG"):
            patch.setenv(f"XDG_{name}_HOME", str(folder / name.lower()))
        patch.setattr("vaultlab.pipeline.QUIET_S", 0.0)
        yield folder


@pytest.fixture
def vault(home: Path, tmp_path: Path) -> Path:
    root = tmp_path / "vault"
    (root / ".vaultlab").mkdir(parents=True)
    (root / "Note.md").write_text(NOTE)
    return root


def test_render_check_why_accept_and_clean(vault: Path) -> None:
    assert Typed("render", vault, "--dry-run").out.startswith("two  missing: it has not run yet")
    assert not (vault / "vaultlab").exists()
    rendered = Typed("render", vault)
    assert (rendered.code, rendered.error and str(rendered.error)) in ((0, None), (0, "0"))
    assert "✓ two  supported" in rendered.out
    assert "![[vaultlab/two#^result]]" in (vault / "Note.md").read_text()
    assert Typed("check", vault).code == 0
    assert Typed("why", "two", "--vault", vault).out.startswith("two: fresh")
    note = vault / "Note.md"
    note.write_text(note.read_text().replace("represented >= 1", "represented > 2"))
    assert Typed("check", vault).code == 1
    assert "refuted" in Typed("render", vault).out
    assert Typed("check", vault).code == 1
    assert "represented > 2: refuted" in Typed("accept", "two", "--vault", vault).out
    assert Typed("check", vault).code == 0
    assert Typed("check", vault, "--strict").code == 1
    page = vault / "vaultlab/two.md"
    page.write_text(page.read_text().replace("represented > 2: refuted", "represented > 2: supported", 1))
    assert "refuted, and another verdict was accepted: represented > 2" in Typed("check", vault).out
    Typed("accept", "two", "--vault", vault)
    assert Typed("render", vault, "--id", "two").code == 0, "an accepted finding is no failure"
    note.write_text("No block any more.\n")
    assert "would remove vaultlab/two.md" in Typed("clean", vault, "--dry-run").out
    assert (vault / "vaultlab/two.md").exists()
    Typed("clean", vault)
    assert not list((vault / "vaultlab").rglob("two*"))


def test_everything_that_can_be_written_wrong_is_said_and_the_rest_runs(vault: Path) -> None:
    for name, (line, _) in WRONG.items():
        block = f"```vaultlab\nsuperposition: {name}\n{line}\n```\n"
        (vault / f"{name}.md").write_text(f"---\ntags: [experiment]\n---\n{block}")
    found = {one["id"]: one for one in Typed("render", vault, "--json").json}
    assert found["two"]["verdict"] == "supported"
    for name, (_, says) in WRONG.items():
        # A block whose YAML cannot be read may have no id: then problems.md says it.
        page = vault / f"vaultlab/{name}.md"
        said = page.read_text() if page.exists() else (vault / "vaultlab/problems.md").read_text()
        assert says in said.replace("\\", ""), f"{name}: {said}"
        assert not (page.exists() and "figures/" in said)
    again = Typed("render", vault, "--json").json
    assert not any(one["wrote"] for one in again)
    assert {one["was"] for one in again} == {"error"}, "what a worker refused is not asked for again"
    shown = Typed("render", vault)
    assert "✗ range  failed before" in shown.out
    assert shown.code == FAILS


def test_a_note_that_cannot_be_read_is_listed_and_left_alone(vault: Path) -> None:
    broken = {
        "frontmatter.md": b"---\ntags: [experiment\n---\n```vaultlab\nsuperposition: a\n```\n",
        "open.md": b"---\ntags: [experiment]\n---\n```vaultlab\nsuperposition: b\n",
        "latin.md": "---\ntags: [experiment]\n---\n```vaultlab\nsuperposition: é\n```\n".encode("latin-1"),
    }
    for name, content in broken.items():
        (vault / name).write_bytes(content)
    shown = Typed("render", vault)
    problems = (vault / "vaultlab/problems.md").read_text()
    for name, content in broken.items():
        assert name.removesuffix(".md") in problems
        assert name in shown.out
        assert (vault / name).read_bytes() == content
    assert "✓ two" in shown.out
    assert Typed("check", vault).code == 1
    assert Typed("clean", vault).error.message.startswith("A note that cannot be read")
    for name in broken:
        (vault / name).unlink()
    Typed("render", vault)
    assert not (vault / "vaultlab/problems.md").exists()


def test_two_renders_at_once_one_waits_and_says_so(vault: Path) -> None:
    begun, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with lock(vault, wait_s=0):
            begun.set()
            leave.wait(30)

    other = threading.Thread(target=hold)
    other.start()
    begun.wait()
    threading.Timer(1.5, leave.set).start()
    shown = Typed("render", vault)
    other.join()
    assert "Another vaultlab is at work in this vault" in shown.out
    assert "✓ two" in shown.out


def test_a_note_without_the_tag_is_named_with_the_line_to_add(vault: Path) -> None:
    (vault / "Note.md").write_text(NOTE.replace("tags: [experiment]", "tags: [idea]"))
    assert "`tags: [experiment]`" in Typed("render", vault).out


def test_run_without_a_vault(home: Path, tmp_path: Path) -> None:
    words = ("features=2", "hidden=1", "sparsity=90%", "steps=100", "batch=64", "seeds=2")
    shown = Typed("run", "superposition", *words, "--out", tmp_path / "out", "--json").json
    assert set(shown) == {"metrics", "checks", "figures", "provenance", "points"}
    assert (tmp_path / "out" / shown["figures"]["weights"]["file"]).exists()
    assert json.loads((tmp_path / "out/result.json").read_text())["metrics"] == shown["metrics"]
    assert Typed("run", "superposition", "features=0").code == USE
    assert "Did you mean `superposition`" in str(Typed("run", "superpositoin").error)


def test_new_is_a_block_that_runs(home: Path, vault: Path) -> None:
    block = Typed("new", "superposition", "--example", "digon").out
    (vault / "Note.md").write_text(f"---\nvaultlab: true\n---\n{block}")
    (item,) = Typed("render", vault, "--dry-run", "--json").json
    assert (item["id"], item["state"]) == ("digon", "missing")


def test_init_changes_nothing_that_is_there(home: Path, tmp_path: Path) -> None:
    Typed("init", tmp_path, "--note", "First")
    first = (tmp_path / "First.md").read_text()
    assert first.startswith("---\ntags: [experiment]\n---\n")
    (tmp_path / "First.md").write_text("mine")
    Typed("init", tmp_path, "--note", "First")
    assert (tmp_path / "First.md").read_text() == "mine"
    assert Typed("render", tmp_path, "--dry-run").code == 0


def test_a_base_shows_the_results_as_a_table(home: Path, tmp_path: Path) -> None:
    Typed("init", tmp_path, "--base")
    base = YAML(typ="safe").load((tmp_path / "Lab.base").read_text())
    assert [view["name"] for view in base["views"]] == ["All results", "To look at", "By experiment"]
    assert (tmp_path / "Lab.base").read_bytes() == (Path(__file__).parents[1] / "sample-vault/Lab.base").read_bytes()
    written = "".join(path.read_text() for path in (Path(__file__).parents[1] / "sample-vault/vaultlab").glob("*.md"))
    for name in set(re.findall(r"\blab_\w+", (tmp_path / "Lab.base").read_text())):
        assert re.search(rf"^{name}:", written, re.MULTILINE), name


def test_a_folder_that_cannot_be_made_is_said_in_a_sentence(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    told = Typed("run", "superposition", "--out", tmp_path / "file" / "out")
    assert isinstance(told.error, VaultlabError)
    assert "could not be written" in told.error.message
    (tmp_path / "sub dir").mkdir()
    assert f"vaultlab render '{tmp_path / 'sub dir'}'" in Typed("init", tmp_path / "sub dir").out
    (tmp_path / "sub dir" / "Notes").write_text("mine")
    told = Typed("init", tmp_path / "sub dir", "--note", "Notes/First")
    assert isinstance(told.error, VaultlabError)


def test_every_command_has_an_example(home: Path) -> None:
    commands = re.findall(r"^│ (\w+) ", Typed("--help").out, re.MULTILINE)
    assert len(commands) >= 11
    for command in [*commands, "models pull", "models add", "models list", "models find", "models remove"]:
        shown = Typed(*command.split(), "--help")
        assert shown.code == 0
        assert f"vaultlab {command}" in " ".join(shown.out.partition("Example")[2].split()) or command == "models"


def test_wrong_use_ends_with_2_and_a_sentence(home: Path, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "from vaultlab.cli import main; main()", "render", str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == USE
    assert "is not a folder" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_doctor_names_folders_and_models(home: Path) -> None:
    found = {one["what"]: one for one in Typed("doctor", "--json").json}
    assert found["vaultlab"]["ok"]
    assert all(one["ok"] or one["mend"] for one in found.values())


def test_of_models_is_told_what_was_asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = {"name": "toy/decline", "family": "llama", "parameters": 283200, "dtype": "float32", "source": "trained"}
    answers = {"list": [toy], "find": [{"name": "toy/decline", "where": "ready", "about": "a toy"}], "remove": []}
    lab = SimpleNamespace(far="", models=lambda action, follow, **arguments: answers[action])
    monkeypatch.setattr("vaultlab.commands.models.lab_on", lambda device: nullcontext(lab))
    assert "0.283 M" in Typed("models", "list").out
    assert Typed("models", "find", "toy").out.split() == ["name", "where", "about", "toy/decline", "ready", "a", "toy"]
    assert Typed("models", "remove", "toy/decline").out.strip() == "`toy/decline` is removed."
    answers.update(list=[], find=[])
    assert "Fetch one: vaultlab models pull" in Typed("models", "list").out
    assert Typed("models", "find", "nobody").out.startswith("No model has `nobody` in its name.")


def test_a_manual_page_says_what_a_stress_varies(home: Path) -> None:
    said = " ".join(Typed("experiments", "superposition").out.split())
    assert "sparsity from 0.7 to 0.99" in said
    assert "an untrained model, which says nothing about training" in said


def test_a_large_sweep_asks_whoever_is_there(home: Path, vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = places.config_dir() / "config.toml"
    owner.parent.mkdir(parents=True, exist_ok=True)
    owner.write_text("[limits]\npoints = 2\n")
    note = vault / "Note.md"
    note.write_text(note.read_text().replace("sparsity: 90%", "sweep: {sparsity: [0.5, 0.8, 0.9]}"))
    try:
        alone = Typed("render", vault)
        command = (
            "two  its sweep has 3 points, and more than 2 run only when asked for. To run it: vaultlab render --id two"
        )
        assert (alone.code, command in alone.out) == (0, True)
        monkeypatch.setattr("vaultlab.terminal.interactive", lambda: True)
        for answer, there in (("n", False), ("y", True)):
            asked = CliRunner().invoke(cli.app, ["render", str(vault)], input=f"{answer}\n")
            assert "more than 2 run only when asked for, about 1 min. Run it? [y/N]" in asked.output
            assert (vault / "vaultlab/two.md").exists() is there
        assert "Metrics" in (vault / "vaultlab/two.md").read_text()
    finally:
        owner.unlink()


def test_stress_tries_the_claims_and_says_what_nonsense_passes(home: Path, vault: Path) -> None:
    note = vault / "Note.md"
    note.write_text(note.read_text().replace("  - represented >= 1\n", "  - loss < 0.04\n  - every norm < 9\n"))
    found = Typed("stress", "two", "--vault", vault, "--runs", 4, "--json")
    assert found.code == FAILS  # a claim that an untrained model fulfils says nothing
    said = json.loads(found.out[found.out.index("{") :])
    assert said["problem"] is None
    assert (said["stress"]["runs"], said["stress"]["controls"]) == (4, 4)
    loss, norm = said["stress"]["claims"]
    assert (norm["held"], norm["nonsense"]) == (4, 4)
    assert loss["nonsense"] <= 2
    again = Typed("stress", "two", "--vault", vault, "--runs", 4).out
    assert "every norm < 9: holds in 4 of 4" in again
    assert "✗ every norm < 9 also holds for an untrained model (4 of 4): it says nothing about training" in again
    assert "Under stress: " in (vault / "vaultlab/two.md").read_text()
    assert Typed("check", vault).code == 0


def test_stress_that_cannot_be_is_refused_with_its_mend(home: Path, vault: Path) -> None:
    assert "Did you mean `two`" in Typed("stress", "tow", "--vault", vault).said
    note = vault / "Note.md"
    text = note.read_text()
    note.write_text(text.partition("expect:")[0] + "```\n")
    assert "`two` has no claim to try" in Typed("stress", "two", "--vault", vault).said
    note.write_text(text.replace("steps: 200", "sweep: {steps: [100, 200, 300]}").replace(">= 1", "rises with steps"))
    many = Typed("stress", "two", "--vault", vault, "--runs", 100).said
    assert "These would be 300 runs" in many
    assert "vaultlab stress two --runs 66" in many
    assert not (vault / "vaultlab").exists()
