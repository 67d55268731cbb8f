"""The words about a vault: render, check, accept, why, clean, init."""

import math
import shlex
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from vaultlab import catalogue, places, terminal, verdicts
from vaultlab.commands.watch import handed_over
from vaultlab.commands.words import (
    FAILS,
    FINE,
    MACHINE,
    Device,
    Json,
    VaultArg,
    VaultOpt,
    alone,
    known_experiments,
    lab_on,
    root_of,
)
from vaultlab.errors import NoteError
from vaultlab.lab import Lab
from vaultlab.notes import page, template
from vaultlab.pipeline import Outcome, Pipeline, Selection, insisted
from vaultlab.result import Judgement, Result, Verdict
from vaultlab.survey import Item, Survey, difference, survey
from vaultlab.vault import config as configuration
from vaultlab.vault import files, presence


def render(
    vault: VaultArg = None,
    note: Annotated[str, typer.Option(help="Only notes whose path matches, such as 'Physics/*'.")] = "*",
    id: Annotated[
        str | None, typer.Option("--id", help="Only this block, even where nothing but its texts changed.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Run again what is fresh, stored or not.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and run nothing.")] = False,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Run what is new or stale, and write results and embeds into the vault.

    Example: `vaultlab render ~/Notes --note 'Superposition*'`
    """
    root, selection = root_of(vault), Selection(note, id, force)
    watched = not dry_run and presence.present(root) is not None
    with lab_on(device) as lab, alone(root, dry_run or watched):
        experiments = known_experiments(lab)
        look = partial(survey, root, places.config_dir(), experiments)
        seen = look()
        _must_exist(seen, id)
        if dry_run:
            _say_plan(seen, [item for item in seen.items if selection.wants(item)], as_json=as_json)
            return
        terminal.survey_problems(seen)
        selections = [selection, *_agreed(lab, seen, selection)]
        outcomes = []
        with terminal.progress() as bar:
            pipeline = Pipeline(look, lab.ask, bar.item, terminal.waiting)
            rendered = [handed_over(look, one) if watched else pipeline.render(one) for one in selections]
            for outcome in chain.from_iterable(rendered):
                bar.rest()
                outcomes.append(outcome)
                if not as_json:
                    terminal.outcome_line(outcome)
        if as_json:
            terminal.dump([_outcome_json(outcome) for outcome in outcomes])
        seen = look()
        if not as_json:
            _say_summary(seen, outcomes)
    standing = FAILS if any(item.state == "failed" for item in seen.items) else FINE
    raise typer.Exit(max(standing, *map(exit_code, outcomes)) if outcomes else standing)


def check(
    vault: VaultArg = None,
    strict: Annotated[bool, typer.Option("--strict", help="Accepted verdicts fail too.")] = False,
    as_json: Json = False,
) -> None:
    """Say whether every result is there, fresh and right, and every claim holds or was accepted. Runs nothing.

    Example: `vaultlab check . --strict`
    """
    seen = _survey(root_of(vault))
    found = [(item.name, item.path, one) for item in seen.items for one in _complaints(item, strict)]
    found += [("", path, one.message) for path, problems in seen.problems.items() for one in problems]
    if as_json:
        terminal.dump([{"id": id or None, "note": path, "problem": one} for id, path, one in found])
    else:
        terminal.survey_problems(replace(seen, problems={}))
        for id, path, one in found:
            terminal.say(f"✗ {id or path}  {one}", "red")
        if not found:
            blocks = "1 block" if len(seen.items) == 1 else f"{len(seen.items)} blocks"
            terminal.say(f"{blocks}, all fresh; every check and every claim holds or was accepted.", "green")
    raise typer.Exit(FAILS if found else FINE)


def accept(id: str, vault: VaultOpt = None) -> None:
    """Record a block's verdicts as the finding they are: from then on only a changed verdict fails `check`.

    Example: `vaultlab accept sentiment-at-layer-0`
    """
    root = root_of(vault)
    with alone(root):
        item = item_of(_survey(root), id)
        if item.stored is None or item.state != "fresh":
            raise NoteError(f"`{id}` has no fresh result to accept ({item.why}).", f"First: vaultlab render --id {id}")
        path = root / configuration.load(root, places.config_dir()).folder / f"{id}.md"
        files.replace(path, page.accept(files.read(path).text).encode())
    for claim, verdict in item.stored.claims.items():
        terminal.say(f"{claim}: {verdict}")


def init(
    vault: Path,
    note: Annotated[str | None, typer.Option(help="Also write a first note of this name, with a block to run.")] = None,
    base: Annotated[bool, typer.Option("--base", help="Also write Lab.base, a table of all results.")] = False,
) -> None:
    """Prepare a vault: a configuration to edit, with `--note` a first experiment, with `--base` a table of all results.
    Nothing that is there is changed.

    Example: `vaultlab init ~/Notes --note 'My first experiment'`
    """
    if not vault.is_dir():
        raise NoteError(f"{vault} is not a folder.", "Give the folder that you open as a vault in Obsidian.")
    root = vault.resolve()
    wrote = _write_new(root / configuration.VAULT_FILE, configuration.TEMPLATE)
    if note is not None:
        known = known_experiments()
        first = known["superposition"]
        text = f"---\ntags: [experiment]\n---\n\n{first.examples[0]['title']}.\n\n"
        path = files.inside(root, note if note.endswith(".md") else f"{note}.md")
        wrote += _write_new(path, text + catalogue.example_block(first, first.examples[0]["id"]))
    if base:
        wrote += _write_new(root / "Lab.base", template.render("lab.base", {}))
    for path in wrote:
        terminal.say(f"wrote {path}")
    terminal.say(f"Next: vaultlab render {shlex.quote(str(vault))}")


def why(id: str, vault: VaultOpt = None) -> None:
    """Why a block is fresh, stale or failed; what it was run with, and what is different now.

    Example: `vaultlab why pentagon`
    """
    seen = _survey(root_of(vault))
    item = item_of(seen, id)
    terminal.say(f"{item.name}: {item.state}" + (f", for {item.why}" if item.why else ""), "bold")
    terminal.say(f"asked in {item.path}, line {item.block.start}")
    for problem in item.problems:
        terminal.say(f"line {problem.line}: {problem.message} {problem.hint}")
    if item.stored is not None:
        if item.state == "stale" and item.why != (changed := difference(item, item.stored)):
            terminal.say(f"changed: {changed}")
        terminal.say("it ran with:")
        for name, value in item.stored.ran.items():
            here = _version_here(name)
            drifted = f"  (drifted: here it is {here}; no reason to run it again)" if here not in (None, value) else ""
            terminal.say(f"  {name}: {value}{drifted}")
        for one in _complaints(item, strict=False):
            terminal.say(f"check says: {one}")


def clean(
    vault: VaultArg = None, dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go.")] = False
) -> None:
    """Remove the result notes and figures that no block asks for any more.

    Example: `vaultlab clean . --dry-run`
    """
    root = root_of(vault)
    with alone(root, dry_run):
        seen = _survey(root)
        if seen.problems:
            terminal.survey_problems(seen)
            raise NoteError(
                "A note that cannot be read may still ask for a result, so nothing is removed.",
                "Mend the notes above first.",
            )
        folder = root / seen.config.folder
        gone = [
            path
            for id in seen.orphans
            for path in (folder / f"{id}.md", *sorted((folder / "figures").glob(f"{id}.*.*")))
        ]
        for path in gone:
            terminal.say(f"{'would remove' if dry_run else 'removed'} {path.relative_to(root)}")
            if not dry_run:
                path.unlink()
        if not gone:
            terminal.say("Nothing to remove.")


def _survey(root: Path) -> Survey:
    return survey(root, places.config_dir(), known_experiments())


def item_of(seen: Survey, id: str) -> Item:
    """The block of this id. NoteError with the nearest where there is none."""
    _must_exist(seen, id)
    return next(item for item in seen.items if item.id == id)


def _must_exist(seen: Survey, id: str | None) -> None:
    ids = [item.id for item in seen.items if item.id]
    if id is not None and id not in ids:
        near = catalogue.nearest(id, ids)
        raise NoteError(f"No block of this vault has the id `{id}`.", f"Did you mean `{near}`?" if near else "")


def _version_here(name: str) -> str | None:
    """The version of a library on this machine, where the name is one's."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _complaints(item: Item, strict: bool) -> list[str]:
    """What `check` says against a block; nothing where all is well."""
    if item.state != "fresh" or item.stored is None:
        return [f"{item.state}: {item.why}"]
    said = [f"the check “{name}” failed" for name in item.stored.failed_checks]
    judged = [Judgement(claim, cast(Verdict, verdict), "") for claim, verdict in item.stored.claims.items()]
    for one in verdicts.unaccepted(judged, () if strict else item.stored.accepted):
        moved = any(found.startswith(f"{one.claim}: ") for found in item.stored.accepted)
        said.append(f"{one.verdict}{', and another verdict was accepted' * moved}: {one.claim}")
    return said


def exit_code(outcome: Outcome) -> int:
    """What a command ends with for a block that came out so."""
    if outcome.machine:
        return MACHINE
    if outcome.problem or (isinstance(outcome.answer, Result) and not outcome.answer.sound):
        return FAILS
    accepted = outcome.item.stored.accepted if outcome.item.stored else ()
    return FAILS if verdicts.unaccepted(outcome.judgements, accepted) else FINE


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    item = outcome.item
    return {
        "id": item.id,
        "note": item.path,
        "line": outcome.line or item.block.start,
        "was": item.state,
        "verdict": outcome.verdict,
        "claims": outcome.judgements,
        "problem": outcome.problem or None,
        "hint": outcome.hint or None,
        "wrote": outcome.wrote,
        "seconds": round(outcome.seconds, 3),
    }


def _agreed(lab: Lab, seen: Survey, selection: Selection) -> list[Selection]:
    """Sweeps with more points than run by themselves: whoever is there is asked, each by itself."""
    agreed: list[Selection] = []
    if selection.by_hand or not terminal.interactive():
        return agreed
    for item in seen.items:
        alone = replace(selection, id=item.id)
        if item.state != "large" or item.ask is None or not alone.wants(item):
            continue
        plan = lab.plan(insisted(item.ask))
        takes = f", about {math.ceil(plan.needs_s / 60)} min" if plan.needs_s else ""
        if typer.confirm(f"{item.name}: {item.why}{takes}. Run it?"):
            agreed.append(alone)
    return agreed


def _say_plan(seen: Survey, todo: list[Item], as_json: bool) -> None:
    if as_json:
        terminal.dump([{"id": item.id, "note": item.path, "state": item.state, "why": item.why} for item in todo])
        return
    terminal.survey_problems(seen)
    for item in todo:
        terminal.say(f"{item.name}  {item.state}: {item.why}  {item.path}")
    terminal.say(f"{len(todo)} of {len(seen.items)} blocks would be looked at; nothing was run or written.")


def _say_summary(seen: Survey, outcomes: list[Outcome]) -> None:
    waiting = [item for item in seen.items if item.state in ("outdated", "reread", "large")]
    for item in waiting:
        terminal.say(f"{item.name}  {item.why}. To run it: vaultlab render --id {item.id}", "yellow")
    now = {outcome.item.id for outcome in outcomes}
    for item in seen.items:
        if item.state == "failed" and item.id not in now:
            terminal.say(
                f"✗ {item.name}  failed before, and nothing has changed since; its result note says why", "red"
            )
    fresh = sum(item.state == "fresh" for item in seen.items)
    terminal.say(f"{fresh} of {len(seen.items)} blocks are fresh; {len(outcomes)} looked at now.")


def _write_new(path: Path, text: str) -> list[Path]:
    if path.exists():
        terminal.warn(f"{path} is there already and stays as it is.")
        return []
    files.replace(path, text.encode())
    return [path]
