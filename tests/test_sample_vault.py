"""The manual stays true: the sample vault's results are those of this very code, and the README names what there is."""

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vaultlab import cli
from vaultlab.models.load import load
from vaultlab.notes import parse, passage
from vaultlab.notes.embed import result_of

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "sample-vault"


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    shutil.copytree(SAMPLE, tmp_path / "vault")
    return tmp_path / "vault"


def test_every_result_is_fresh_and_every_claim_holds_or_was_accepted(vault: Path) -> None:
    checked = CliRunner().invoke(cli.app, ["check", str(vault)])
    assert checked.exit_code == 0, checked.output


def test_what_a_note_embeds_is_there_and_every_figure_has_its_file() -> None:
    for note in SAMPLE.glob("*.md"):
        for embed in parse.parse(note.read_text()).embeds:
            id = result_of(embed, "vaultlab")
            assert id is None or (SAMPLE / f"vaultlab/{id}.md").exists(), f"{note.name} embeds {embed.path}"
    for page in (SAMPLE / "vaultlab").glob("*.md"):
        for file in re.findall(r"\]\((figures/[^)]+)\)", page.read_text()):
            assert (SAMPLE / "vaultlab" / file).exists(), f"{page.name} shows {file}"


@pytest.mark.parametrize("note", sorted((SAMPLE / "Lists").glob("*.md")), ids=lambda note: note.stem)
def test_the_lists_are_long_enough_go_together_and_say_nothing_twice(note: Path) -> None:
    text = note.read_text()
    one, other = (passage.items(text, heading) for heading in re.findall(r"^## (\w+)$", text, re.MULTILINE))
    assert len(one) == len(other) >= 40
    assert len({*one, *other}) == len(one) + len(other)


@pytest.mark.model
def test_the_words_that_are_said_to_be_one_token_are() -> None:
    model = load("smollm2-135m")
    for name, count in (("Sentiment", None), ("Capitals", 40)):
        text = (SAMPLE / f"Lists/{name}.md").read_text()
        for heading in re.findall(r"^## (\w+)$", text, re.MULTILINE):
            for word in passage.items(text, heading)[:count]:
                assert len(model.tokens(f" {word}", bos=False).ids) == 1, word


def test_the_readme_names_every_experiment_and_every_command() -> None:
    readme = (ROOT / "README.md").read_text()
    experiments = {path.stem for path in (ROOT / "vaultlab/experiments").glob("[a-z]*.py")}
    assert set(re.findall(r"^\| `(\w+)` \| ", readme, re.MULTILINE)) == experiments
    commands = {command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    assert commands <= set(re.findall(r"`(\w+)[ `]", readme))


@pytest.mark.long
@pytest.mark.model
@pytest.mark.timeout(2700)
def test_the_sample_vault_renders_anew_from_its_notes_alone(vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = {page.stem for page in (vault / "vaultlab").glob("*.md") if "lab_accepted" in page.read_text()}
    shutil.rmtree(vault / "vaultlab")
    monkeypatch.setattr("vaultlab.pipeline.QUIET_S", 0.0)
    CliRunner().invoke(cli.app, ["render", str(vault), "--force"])
    for page in (SAMPLE / "vaultlab").glob("*.md"):
        verdict = re.search(r"^lab_verdict: (\w+)$", page.read_text(), re.MULTILINE)
        again = re.search(r"^lab_verdict: (\w+)$", (vault / "vaultlab" / page.name).read_text(), re.MULTILINE)
        assert (verdict and verdict[1]) == (again and again[1]), page.stem
        assert page.stem in accepted or verdict is None or verdict[1] == "supported"
