"""The words about experiments, without a vault: run, experiments, new, doctor."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vaultlab import __version__, catalogue, places, terminal
from vaultlab.catalogue import Catalogue
from vaultlab.commands.words import FAILS, FINE, MACHINE, USE, Device, Json, known_experiments, lab_on, must_know
from vaultlab.errors import NoteError, RunError, VaultlabError
from vaultlab.lab import Lab
from vaultlab.notes import parse
from vaultlab.pipeline import insisted
from vaultlab.process import logs
from vaultlab.result import Ask, Failure, Refusal, encode
from vaultlab.texts import Texts
from vaultlab.vault import config as configuration
from vaultlab.vault import files


def run(
    experiment: str,
    fields: Annotated[list[str] | None, typer.Argument(help="field=value, as a block would say it.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write figures and result.json into this folder.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Run one experiment without a vault.

    Example: `vaultlab run superposition features=5 hidden=2 sparsity=95% --out /tmp/pentagon`
    """
    if out is not None:
        with files.in_words(out, "written"):
            out.mkdir(parents=True, exist_ok=True)
    with lab_on(device) as lab:
        ask = _ask_of(experiment, fields or [], known_experiments(lab))
        with terminal.progress() as bar:
            answer = lab.ask(insisted(ask), lambda step: bar.step(experiment, step))
    if isinstance(answer, Refusal | Failure):
        terminal.fail(VaultlabError(answer.message, answer.hint))
        raise typer.Exit(USE if isinstance(answer, Refusal) else MACHINE)
    wire = encode(answer)
    plain = {part: wire[part] for part in ("metrics", "checks", "figures", "provenance", "points")}
    if out is not None:
        for name, figure in answer.figures.items():
            files.replace(out / f"{name}.{figure.kind}", figure.content)
            plain["figures"][name] = {"file": f"{name}.{figure.kind}", "alt": figure.alt}
        files.replace(out / "result.json", (json.dumps(plain, indent=2, ensure_ascii=False) + "\n").encode())
    if as_json:
        terminal.dump(plain)
    else:
        terminal.say(answer.summary, "bold")
        terminal.numbers(answer.metrics, answer.checks)
        for point in answer.points:
            terminal.say(", ".join(f"{name}={value}" for name, value in point.fields.items()), "bold")
            terminal.numbers(point.metrics, point.checks)
        for name, figure in answer.figures.items():
            terminal.say(f"{out / f'{name}.{figure.kind}' if out else name}: {figure.alt}", "dim")
    raise typer.Exit(FINE if answer.sound else FAILS)


def experiments(name: Annotated[str | None, typer.Argument()] = None, as_json: Json = False) -> None:
    """The experiments there are; with a name, its manual page.

    Example: `vaultlab experiments superposition`
    """
    known = known_experiments()
    if name is not None:
        must_know(known, name)
    chosen = {one: known[one] for one in known if name in (None, one)}
    if as_json:
        terminal.dump(chosen)
    elif name is not None:
        terminal.manual(known[name])
    else:
        terminal.table(
            [{"experiment": one, "what": entry.title} for one, entry in chosen.items()], ("experiment", "what")
        )


def new(
    experiment: str,
    example: Annotated[str | None, typer.Option(help="Which of its examples; the first otherwise.")] = None,
) -> None:
    """A block ready to paste.

    Example: `vaultlab new superposition >> 'My note.md'`
    """
    known = known_experiments()
    must_know(known, experiment)
    names = [one["id"] for one in known[experiment].examples]
    if example is not None and example not in names:
        raise NoteError(f"`{experiment}` has no example `{example}`.", f"It has: {', '.join(names)}.")
    sys.stdout.write(catalogue.example_block(known[experiment], example or names[0]))


def doctor(device: Device = None, as_json: Json = False) -> None:
    """What is installed, the devices, models, disk and permissions, which of your workers answer; each with its mend.

    Example: `vaultlab doctor`, and for a worker on another machine `vaultlab doctor --device box`
    """
    with Lab() if device is None else lab_on(device) as lab:
        try:
            found = lab.doctor()
        except RunError as error:
            found = [_ill("worker", error)]
    if device is None:
        config = configuration.of_owner(places.config_dir())
        found += [_ill("config.toml", VaultlabError(problem)) for problem in config.problems]
        known = known_experiments() if config.workers else Catalogue()
        found += [answers(name, command, known) for name, command in config.workers.items()]
    found.append({"what": "logs", "ok": True, "detail": str(logs()), "mend": ""})
    if as_json:
        terminal.dump(found)
    else:
        for one in found:
            terminal.say(f"{'✓' if one['ok'] else '✗'} {one['what']}: {one['detail']}", "" if one["ok"] else "red")
            if one["mend"]:
                terminal.say(f"    {one['mend']}")
    raise typer.Exit(FINE if all(one["ok"] for one in found) else MACHINE)


def answers(name: str, command: Sequence[str], known: Catalogue) -> dict[str, Any]:
    """Whether this worker on another machine answers, and with the experiments that are known here."""
    what = f"worker {name}"
    try:
        with Lab(command, far=name) as lab:
            there = lab.describe()
            devices = ", ".join(lab.here()["devices"])
    except RunError as error:
        return _ill(what, error)
    other = [one for one in known if there["experiments"].get(one, {}).get("version") != known[one].version]
    if other:
        said = f"It answers, but its vaultlab {there['vaultlab']} has other versions of: {', '.join(other)}."
        return _ill(what, RunError(said, f"Install vaultlab {__version__} there: these experiments will not run."))
    return {"what": what, "ok": True, "detail": f"vaultlab {there['vaultlab']}, {devices}", "mend": ""}


def _ill(what: str, error: VaultlabError) -> dict[str, Any]:
    return {"what": what, "ok": False, "detail": error.message, "mend": error.hint}


def _ask_of(experiment: str, fields: list[str], known: Catalogue) -> Ask:
    """The Ask of a command line, read as the block that it stands for."""
    must_know(known, experiment)
    entry = known[experiment]
    texts, lists = entry.of_kind("text"), entry.of_kind("list")
    lines = [f"experiment: {experiment}"]
    for one in fields:
        name, equals, value = one.partition("=")
        if not equals:
            raise NoteError(
                f"`{one}` is not of the form field=value.", f"For example: vaultlab run {experiment} seed=1"
            )
        as_text = name in texts or (name in lists and not re.match(r"\[(?!\[)", value))
        lines.append(f"{name}: {json.dumps(value, ensure_ascii=False) if as_text else value}")
    block = parse.parse("```vaultlab\n{}\n```\n".format("\n".join(lines))).blocks[0]
    if block.problems:
        raise NoteError(block.problems[0].message, block.problems[0].hint)
    config = configuration.load(Path.cwd(), places.config_dir())
    return Ask(
        "run",
        experiment,
        block.fields,
        texts=Texts(config).of(entry, block.fields),
        points=parse.expand(block.sweep),
        limits=config.limits,
        version=entry.version,
    )
