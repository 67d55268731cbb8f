"""The words you type. Exit codes: 0 fine, 1 a result or a claim fails, 2 wrong use, 3 the machine."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from vaultlab import __version__, catalogue, claims, places, terminal
from vaultlab.catalogue import Catalogue
from vaultlab.errors import NoteError, RunError, VaultlabError
from vaultlab.lab import Lab
from vaultlab.notes import page, parse
from vaultlab.pipeline import Outcome, Pipeline, Selection
from vaultlab.result import Ask, Failure, Judgement, Refusal, Result, Verdict, encode
from vaultlab.survey import Item, Survey, difference, survey
from vaultlab.texts import Texts
from vaultlab.vault import config as configuration
from vaultlab.vault import files
from vaultlab.vault.journal import Journal, lock

FINE, FAILS, USE, MACHINE = 0, 1, 2, 3

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Claims in Obsidian notes that run.\n\nBegin with `vaultlab init VAULT`, then `vaultlab render VAULT`.",
    epilog="Exit codes: 0 fine · 1 a result or a claim fails · 2 wrong use · 3 the machine",
)
models_app = typer.Typer(
    no_args_is_help=True, help="The models that notes may name. Example: `vaultlab models pull smollm2-135m`"
)
app.add_typer(models_app, name="models")

VaultArg = Annotated[
    Path | None, typer.Argument(help="The vault's folder; without it, the vault around the current folder.")
]
VaultOpt = Annotated[
    Path | None, typer.Option("--vault", help="The vault's folder; without it, the vault around the current folder.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
Device = Annotated[str | None, typer.Option(help="cuda, cuda:1, mps or cpu; chosen by itself otherwise.")]


def main() -> None:
    """The entry point: every error that has a sentence ends as that sentence and its exit code."""
    try:
        app()
    except NoteError as error:
        terminal.fail(error)
        sys.exit(USE)
    except VaultlabError as error:
        terminal.fail(error)
        sys.exit(MACHINE)


@app.callback(invoke_without_command=True)
def _main(say_version: Annotated[bool, typer.Option("--version", help="Say the version and stop.")] = False) -> None:
    if say_version:
        terminal.say(f"vaultlab {__version__}")
        raise typer.Exit


@app.command()
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
    root, selection = _root(vault), Selection(note, id, force)
    with _lab(device) as lab, _working(root, dry_run):
        experiments = catalogue.load(lab.describe)
        look = partial(survey, root, places.config_dir(), experiments)
        seen = look()
        _must_exist(seen, id)
        if dry_run:
            _say_plan(seen, [item for item in seen.items if selection.wants(item)], as_json=as_json)
            return
        if not as_json:
            terminal.survey_problems(seen)
        outcomes = []
        with terminal.progress() as bar:
            for outcome in Pipeline(look, lab.ask, bar.item, terminal.waiting).render(selection):
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
    raise typer.Exit(max(map(_exit_code, outcomes), default=standing))


@app.command()
def check(
    vault: VaultArg = None,
    strict: Annotated[bool, typer.Option("--strict", help="Accepted verdicts fail too.")] = False,
    as_json: Json = False,
) -> None:
    """Say whether every result is there, fresh and right, and every claim holds or was accepted. Runs nothing.

    Example: `vaultlab check . --strict`
    """
    seen = _survey(_root(vault))
    found = [(item.name, item.path, one) for item in seen.items for one in _complaints(item, strict)]
    found += [("", path, one.message) for path, problems in seen.problems.items() for one in problems]
    if as_json:
        terminal.dump([{"id": id or None, "note": path, "problem": one} for id, path, one in found])
    else:
        terminal.survey_problems(replace(seen, problems={}))
        for id, path, one in found:
            terminal.say(f"✗ {id or path}  {one}", "red")
        if not found:
            terminal.say(
                f"{len(seen.items)} blocks, all fresh; every check and every claim holds or was accepted.", "green"
            )
    raise typer.Exit(FAILS if found else FINE)


@app.command()
def accept(id: str, vault: VaultOpt = None) -> None:
    """Record a block's verdicts as the finding they are: from then on only a changed verdict fails `check`.

    Example: `vaultlab accept sentiment-at-layer-0`
    """
    root = _root(vault)
    with _working(root):
        item = _item(_survey(root), id)
        if item.stored is None or item.state != "fresh":
            raise NoteError(f"`{id}` has no fresh result to accept ({item.why}).", f"First: vaultlab render --id {id}")
        path = root / configuration.load(root, places.config_dir()).folder / f"{id}.md"
        files.replace(path, page.accept(files.read(path).text).encode())
    for claim, verdict in item.stored.claims.items():
        terminal.say(f"{claim}: {verdict}")


@app.command()
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
    with _lab(device) as lab:
        ask = _ask_of(experiment, fields or [], catalogue.load(lab.describe))
        with terminal.progress() as bar:
            answer = lab.ask(ask, lambda step: bar.step(experiment, step))
    if isinstance(answer, Refusal | Failure):
        terminal.fail(VaultlabError(answer.message, answer.hint))
        raise typer.Exit(USE if isinstance(answer, Refusal) else MACHINE)
    wire = encode(answer)
    plain = {part: wire[part] for part in ("metrics", "checks", "figures", "provenance", "points")}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name, figure in answer.figures.items():
            (out / f"{name}.{figure.kind}").write_bytes(figure.content)
            plain["figures"][name] = {"file": f"{name}.{figure.kind}", "alt": figure.alt}
        (out / "result.json").write_text(json.dumps(plain, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
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
    raise typer.Exit(FINE if _checks_hold(answer) else FAILS)


@app.command()
def experiments(name: Annotated[str | None, typer.Argument()] = None, as_json: Json = False) -> None:
    """The experiments there are; with a name, its manual page.

    Example: `vaultlab experiments superposition`
    """
    known = _catalogue()
    if name is not None:
        _must_know(known, name)
    chosen = {one: known[one] for one in known if name in (None, one)}
    if as_json:
        terminal.dump(chosen)
    elif name is not None:
        terminal.manual(known[name])
    else:
        terminal.table(
            [{"experiment": one, "what": entry.title} for one, entry in chosen.items()], ("experiment", "what")
        )


@app.command()
def new(
    experiment: str,
    example: Annotated[str | None, typer.Option(help="Which of its examples; the first otherwise.")] = None,
) -> None:
    """A block ready to paste.

    Example: `vaultlab new superposition >> 'My note.md'`
    """
    known = _catalogue()
    _must_know(known, experiment)
    names = [one["id"] for one in known[experiment].examples]
    if example is not None and example not in names:
        raise NoteError(f"`{experiment}` has no example `{example}`.", f"It has: {', '.join(names)}.")
    sys.stdout.write(catalogue.example_block(known[experiment], example or names[0]))


@app.command()
def init(
    vault: Path,
    note: Annotated[str | None, typer.Option(help="Also write a first note of this name, with a block to run.")] = None,
) -> None:
    """Prepare a vault: a configuration to edit, and with `--note` a first experiment. Nothing that is there is changed.

    Example: `vaultlab init ~/Notes --note 'My first experiment'`
    """
    if not vault.is_dir():
        raise NoteError(f"{vault} is not a folder.", "Give the folder that you open as a vault in Obsidian.")
    root = vault.resolve()
    wrote = _write_new(root / configuration.VAULT_FILE, configuration.TEMPLATE)
    if note is not None:
        known = _catalogue()
        first = known["superposition"]
        text = f"---\ntags: [experiment]\n---\n\n{first.examples[0]['title']}.\n\n"
        path = files.inside(root, note if note.endswith(".md") else f"{note}.md")
        wrote += _write_new(path, text + catalogue.example_block(first, first.examples[0]["id"]))
    for path in wrote:
        terminal.say(f"wrote {path}")
    terminal.say(f"Next: vaultlab render {vault}")


@app.command()
def why(id: str, vault: VaultOpt = None) -> None:
    """Why a block is fresh, stale or failed; what it was run with, and what is different now.

    Example: `vaultlab why pentagon`
    """
    seen = _survey(_root(vault))
    item = _item(seen, id)
    terminal.say(f"{item.name}: {item.state}" + (f", for {item.why}" if item.why else ""), "bold")
    terminal.say(f"asked in {item.path}, line {item.block.start}")
    for problem in item.problems:
        terminal.say(f"line {problem.line}: {problem.message} {problem.hint}")
    if item.stored is not None:
        if item.state == "stale":
            terminal.say(f"changed: {difference(item, item.stored)}")
        terminal.say("it ran with:")
        for name, value in item.stored.ran.items():
            here = _version_here(name)
            drifted = f"  (drifted: here it is {here}; no reason to run it again)" if here not in (None, value) else ""
            terminal.say(f"  {name}: {value}{drifted}")
        for one in _complaints(item, strict=False):
            terminal.say(f"check says: {one}")


@app.command()
def clean(
    vault: VaultArg = None, dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go.")] = False
) -> None:
    """Remove the result notes and figures that no block asks for any more.

    Example: `vaultlab clean . --dry-run`
    """
    root = _root(vault)
    with _working(root, dry_run):
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


@app.command()
def doctor(as_json: Json = False) -> None:
    """What is installed, the devices, models, disk and permissions, each with its mend.

    Example: `vaultlab doctor`
    """
    with _lab(None) as lab:
        try:
            found = lab.doctor()
        except RunError as error:
            found = [{"what": "worker", "ok": False, "detail": error.message, "mend": error.hint}]
    if as_json:
        terminal.dump(found)
    else:
        for one in found:
            terminal.say(f"{'✓' if one['ok'] else '✗'} {one['what']}: {one['detail']}", "" if one["ok"] else "red")
            if one["mend"]:
                terminal.say(f"    {one['mend']}")
    raise typer.Exit(FINE if all(one["ok"] for one in found) else MACHINE)


# -- models ----------------------------------------------------------------------------------------------------


@models_app.command("list")
def models_list(as_json: Json = False) -> None:
    """The models on this machine. Example: `vaultlab models list`"""
    _models("list", as_json)


@models_app.command("find")
def models_find(word: str, as_json: Json = False) -> None:
    """The models whose name has this word. Example: `vaultlab models find smol`"""
    _models("find", as_json, word=word)


@models_app.command("pull")
def models_pull(
    name: Annotated[str, typer.Argument(help="smollm2-135m, or ORG/NAME[@REV] of the Hugging Face hub.")],
) -> None:
    """Fetch a model, convert and verify it. Example: `vaultlab models pull smollm2-135m`"""
    _models("pull", name=name)


@models_app.command("add")
def models_add(name: str, path: Path) -> None:
    """Add a model from a folder, a safetensors or a GGUF file. Example: `vaultlab models add mine ./checkpoint`"""
    _models("add", name=name, path=str(path.resolve()))


@models_app.command("remove")
def models_remove(name: str) -> None:
    """Remove a model from this machine. Example: `vaultlab models remove mine`"""
    _models("remove", name=name)


def _models(action: str, as_json: bool = False, **arguments: Any) -> None:
    with _lab(None) as lab, terminal.progress() as bar:
        found = lab.models(action, lambda step: bar.step(arguments.get("name", action), step), **arguments)
    if as_json:
        terminal.dump(found)
    elif found:
        terminal.table(found, ("name", "family", "parameters", "dtype", "source"))
    else:
        terminal.say("No model here yet. Fetch one: vaultlab models pull smollm2-135m")


# -- what the commands share -----------------------------------------------------------------------------------


def _root(vault: Path | None) -> Path:
    if vault is not None:
        if not vault.is_dir():
            raise NoteError(f"{vault} is not a folder.", "Give the folder that you open as a vault in Obsidian.")
        return vault.resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".vaultlab").is_dir() or (folder / ".obsidian").is_dir():
            return folder
    raise NoteError(
        "There is no vault around this folder.", "Give the vault's folder, or prepare one: vaultlab init VAULT"
    )


def _lab(device: str | None) -> Lab:
    return Lab(device=device)


def _catalogue() -> Catalogue:
    with _lab(None) as lab:
        return catalogue.load(lab.describe)


def _survey(root: Path) -> Survey:
    return survey(root, places.config_dir(), _catalogue())


@contextmanager
def _working(root: Path, dry_run: bool = False) -> Iterator[None]:
    """Alone in this vault, and after what a crash left has been repaired."""
    if dry_run:
        yield
        return
    with lock(root, wait_s=600):
        for sentence in Journal(root).recover(configuration.load(root, places.config_dir()).folder):
            terminal.warn(sentence)
        yield


def _item(seen: Survey, id: str) -> Item:
    _must_exist(seen, id)
    return next(item for item in seen.items if item.id == id)


def _must_exist(seen: Survey, id: str | None) -> None:
    ids = [item.id for item in seen.items if item.id]
    if id is not None and id not in ids:
        near = catalogue.nearest(id, ids)
        raise NoteError(f"No block of this vault has the id `{id}`.", f"Did you mean `{near}`?" if near else "")


def _must_know(known: Catalogue, name: str) -> None:
    if name not in known:
        near = known.nearest(name)
        hint = f"Did you mean `{near}`? " if near else ""
        raise NoteError(f"There is no experiment `{name}`.", f"{hint}There are: {', '.join(known)}.")


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
    for one in claims.unaccepted(judged, () if strict else item.stored.accepted):
        said.append(f"{one.verdict}: {one.claim}")
    return said


def _checks_hold(result: Result) -> bool:
    return all(check.ok for checks in (result.checks, *(point.checks for point in result.points)) for check in checks)


def _exit_code(outcome: Outcome) -> int:
    if outcome.machine:
        return MACHINE
    if outcome.problem or (isinstance(outcome.answer, Result) and not _checks_hold(outcome.answer)):
        return FAILS
    accepted = outcome.item.stored.accepted if outcome.item.stored else ()
    return FAILS if claims.unaccepted(outcome.judgements, accepted) else FINE


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    item = outcome.item
    return {
        "id": item.id,
        "note": item.path,
        "line": item.block.start,
        "was": item.state,
        "verdict": outcome.verdict,
        "claims": outcome.judgements,
        "problem": outcome.problem or None,
        "hint": outcome.hint or None,
        "wrote": outcome.wrote,
        "seconds": round(outcome.seconds, 3),
    }


def _say_plan(seen: Survey, todo: list[Item], as_json: bool) -> None:
    if as_json:
        terminal.dump([{"id": item.id, "note": item.path, "state": item.state, "why": item.why} for item in todo])
        return
    terminal.survey_problems(seen)
    for item in todo:
        terminal.say(f"{item.name}  {item.state}: {item.why}  {item.path}")
    terminal.say(f"{len(todo)} of {len(seen.items)} blocks would be looked at; nothing was run or written.")


def _say_summary(seen: Survey, outcomes: list[Outcome]) -> None:
    waiting = [item for item in seen.items if item.state in ("outdated", "reread")]
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


def _ask_of(experiment: str, fields: list[str], known: Catalogue) -> Ask:
    """The Ask of a command line, read as the block that it stands for."""
    _must_know(known, experiment)
    texts = known[experiment].of_kind("text")
    lines = [f"experiment: {experiment}"]
    for one in fields:
        name, equals, value = one.partition("=")
        if not equals:
            raise NoteError(
                f"`{one}` is not of the form field=value.", f"For example: vaultlab run {experiment} seed=1"
            )
        lines.append(f"{name}: {json.dumps(value, ensure_ascii=False) if name in texts else value}")
    block = parse.parse("```vaultlab\n{}\n```\n".format("\n".join(lines))).blocks[0]
    if block.problems:
        raise NoteError(block.problems[0].message, block.problems[0].hint)
    config = configuration.load(Path.cwd(), places.config_dir())
    values = {name: block.fields.get(name, known[experiment].defaults[name]) for name in texts}
    read = Texts(config)
    resolved = {name: read.resolve(value) for name, value in values.items() if isinstance(value, str)}
    return Ask("run", experiment, block.fields, texts=resolved, points=parse.expand(block.sweep), limits=config.limits)


def _write_new(path: Path, text: str) -> list[Path]:
    if path.exists():
        terminal.warn(f"{path} is there already and stays as it is.")
        return []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return [path]
