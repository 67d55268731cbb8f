"""The word about what a claim survives: stress."""

import math
from contextlib import nullcontext
from functools import partial
from typing import Annotated

import typer

from vaultlab import catalogue, places, terminal
from vaultlab.commands.vault import exit_code, item_of
from vaultlab.commands.words import FAILS, FINE, Device, Json, VaultOpt, alone, root_of
from vaultlab.errors import NoteError
from vaultlab.lab import Lab
from vaultlab.pipeline import Pipeline, Selection, insisted
from vaultlab.stress import CONTROLS, RUNS, Trial, trial
from vaultlab.survey import Item, survey
from vaultlab.vault import presence
from vaultlab.vault.journal import lock

_WRITE_WAIT_S = 60.0


def stress(
    id: str,
    vault: VaultOpt = None,
    runs: Annotated[int | None, typer.Option("--runs", min=1, help=f"Variations to try; {RUNS} by default.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """See how often a block's claims hold when seed, thresholds and fields are varied, and whether nonsense passes too.

    What is varied, and over what, the experiment says: `vaultlab experiments NAME`. The findings go into the result
    note, and stay there until the block asks something else. It ends with 1 where a claim does not hold as it stands,
    or holds for nonsense too; that it breaks somewhere is a finding.

    Example: `vaultlab stress pentagon --runs 20`
    """
    root = root_of(vault)
    watched = presence.present(root) is not None
    # A daemon is at the vault only while it writes: so are we, beside it.
    writing = partial(lock, root, _WRITE_WAIT_S) if watched else nullcontext
    with Lab(device=device) as lab, alone(root, dry_run=watched):
        look = partial(survey, root, places.config_dir(), catalogue.load(lab.describe))
        seen = look()
        item = item_of(seen, id)
        tried = _trial(item, runs, seen.config.limits.points)
        _may_take(lab, item, tried)
        with terminal.progress() as bar:
            pipeline = Pipeline(look, lab.ask, bar.item, terminal.waiting, alone=writing)
            outcome = pipeline.one(seen, item, Selection(), tried)
    found = outcome.stress
    if as_json:
        terminal.dump({"id": id, "problem": outcome.problem or None, "hint": outcome.hint or None, "stress": found})
    else:
        terminal.outcome_line(outcome)
        terminal.stress(found) if found else None
    raise typer.Exit(max(exit_code(outcome), FAILS if found and found.empty else FINE))


def _trial(item: Item, runs: int | None, most: int) -> Trial:
    """The variations of a block. NoteError where there is nothing to try, or nothing to try it on."""
    for problem in item.problems:
        raise NoteError(problem.message, problem.hint)
    assert item.entry is not None
    assert item.ask is not None
    if not item.block.expect:
        mend = f"Give it one, such as:\n  expect:\n    - {next(iter(item.known))} < 1"
        raise NoteError(f"`{item.id}` has no claim to try.", mend)
    swept = tuple(item.block.sweep)
    usual = max(1, min(RUNS, most // max(1, len(item.ask.points)) - CONTROLS))
    found = trial(item.entry, item.fields, swept, runs or usual)
    if not found.varied:
        mend = "Its block sweeps all that could be varied." if item.entry.stress else "Its file says no `stress`."
        raise NoteError(f"`{item.entry.name}` has nothing to vary here.", mend)
    return found


def _may_take(lab: Lab, item: Item, tried: Trial) -> None:
    """Say how long it will take. More runs than go by themselves are asked for; NoteError where nobody can be."""
    assert item.ask is not None
    ask, most = tried.ask(item.ask), item.ask.limits.points
    plan = lab.plan(insisted(ask))
    takes = f", about {math.ceil(plan.needs_s / 60)} min" if plan.needs_s else ""
    runs = f"{len(ask.points)} runs{takes}"
    if len(ask.points) <= most:
        terminal.warn(f"{runs}: {len(tried.varied)} variations, {len(tried.nonsense)} controls.", "dim")
    elif not terminal.interactive():
        fewer = max(1, most * len(tried.varied) // len(ask.points))
        mend = f"Take fewer: vaultlab stress {item.id} --runs {fewer}"
        raise NoteError(f"These would be {runs}; more than {most} run only when asked for.", mend)
    elif not typer.confirm(f"{runs}; more than {most} run only when asked for. Run them?"):
        raise typer.Exit(FINE)
