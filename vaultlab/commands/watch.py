"""The words about a vault's daemon: watch, status, stop."""

import os
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from vaultlab import places, terminal, trust
from vaultlab.commands.log import logged
from vaultlab.commands.words import FINE, Device, Json, VaultArg, alone, known_experiments, lab_on, root_of
from vaultlab.errors import NoteError, RunError
from vaultlab.jobs import Job, Jobs
from vaultlab.pairing import Pairings
from vaultlab.pipeline import Outcome, Selection
from vaultlab.result import Judgement, Verdict
from vaultlab.survey import Item, Look, Survey, survey
from vaultlab.vault import config as configuration
from vaultlab.vault import presence
from vaultlab.vault.journal import home, made
from vaultlab.vault.presence import Request, queue_of

if TYPE_CHECKING:
    from vaultlab.daemon import Daemon, Status

STOP_S = 15.0
"""How long the daemon may take to end: a run in a native call has to be killed first."""

_SAY_S = 1.0
_FOLLOW_S = 0.1


def watch(
    vault: VaultArg = None,
    trusted: Annotated[bool, typer.Option("--trust", help="Trust this vault on this machine from now on.")] = False,
    device: Device = None,
) -> None:
    """Run what you type, for as long as it is open beside Obsidian: two quiet seconds after an edit, its block runs.

    Example: `vaultlab watch ~/Notes`
    """
    # Here, not above: what watching takes is a tenth of a second that no other command, and no `--help`, should wait.
    from vaultlab.daemon import Daemon, Way  # noqa: PLC0415
    from vaultlab.desk import Worker  # noqa: PLC0415
    from vaultlab.service import serving  # noqa: PLC0415
    from vaultlab.vault.watch import Watch  # noqa: PLC0415

    root = root_of(vault)
    ask_for_trust(root, trusted)
    with presence.attend(root), logged(), lab_on(device, patient=True) as lab, ExitStack() as held:
        with alone(root):  # what a crash has left is repaired first
            experiments = known_experiments(lab)
        look = partial(survey, root, places.config_dir(), experiments)
        jobs = held.enter_context(closing(Jobs(queue_of(root))))
        way = Way(lab.ask, lab.cancel, lab.deaths, lab.stored)
        daemon = Daemon(root, look, way, jobs, _tell)
        held.enter_context(serving(daemon, Worker(lab.here, lab.data, lambda ask: lab.plan(ask).problems)))
        with _ending(daemon), _saying(root, daemon), terminal.live(lambda: _view(root, daemon)):
            terminal.say(f"Watching {root}. Ctrl-C ends it.")
            daemon.serve(Watch(root, partial(configuration.load, root, places.config_dir()), daemon.changes.add))
    terminal.say("Stopped. What was still to run stays in the queue.")


def status(vault: VaultArg = None, as_json: Json = False) -> None:
    """What the vault's daemon is doing: what runs, since when, and what is queued.

    Example: `vaultlab status ~/Notes`
    """
    root = root_of(vault)
    here = presence.present(root)
    with closing(Jobs(queue_of(root), read_only=True)) as jobs:
        pending = jobs.pending()
    if as_json:
        terminal.dump({"daemon": here, "jobs": pending})
        return
    if here is None:
        terminal.say(f"No daemon watches {root}. To begin: vaultlab watch {shlex.quote(str(root))}")
    else:
        since = time.strftime("%d %b %H:%M", time.localtime(here["since"])) if "since" in here else "just now"
        terminal.say(f"Process {here.get('pid', '?')} watches {root} since {since}.")
        for sentence in filter(None, (here.get("restraint"), here.get("scans"), _held(here.get("held", 0), root))):
            terminal.say(sentence, "yellow")
    for line in _lines(pending, (here or {}).get("progress", "")):
        terminal.say(line)
    if not pending:
        terminal.say("Nothing is queued.")


def pair(vault: VaultArg = None) -> None:
    """Print a code that pairs the plugin in Obsidian with the vault's daemon: once, within two minutes.

    Example: `vaultlab pair ~/Notes`
    """
    root = root_of(vault)
    if presence.present(root) is None:
        raise RunError(f"No daemon watches {root}.", f"Begin with: vaultlab watch {shlex.quote(str(root))}")
    terminal.say(pairings_of(root).offer(time.time()))
    terminal.warn("Type it in Obsidian within two minutes: Settings, vaultlab, Pair.", "dim")


def stop(vault: VaultArg = None) -> None:
    """End the vault's daemon. What was still to run stays in the queue.

    Example: `vaultlab stop ~/Notes`
    """
    root = root_of(vault)
    here = presence.present(root)
    if here is None:
        terminal.say(f"No daemon watches {root}.")
        raise typer.Exit(FINE)
    if "pid" in here:
        with suppress(ProcessLookupError):
            os.kill(here["pid"], signal.SIGTERM)
    until = time.monotonic() + STOP_S
    while presence.present(root) is not None:
        if time.monotonic() > until:
            raise RunError(
                "The daemon has not ended yet.", f"Try again, or end process {here.get('pid', '?')} yourself."
            )
        time.sleep(0.1)
    terminal.say("Stopped. What was still to run stays in the queue.")


def handed_over(look: Look, selection: Selection) -> Iterator[Outcome]:
    """What the vault's daemon makes of what is selected: it runs it, and this waits. RunError if it ends meanwhile."""
    seen = look()
    waiting = {item.id: item for item in seen.items if item.id and selection.wants(item)}
    if not waiting:
        return
    terminal.warn("This vault is being watched: its daemon runs these blocks.", "dim")
    presence.request(seen.root, Request(tuple(waiting), selection.force, selection.id is not None))
    with closing(Jobs(queue_of(seen.root), read_only=True)) as jobs:
        while waiting:
            time.sleep(_FOLLOW_S)
            ended = presence.present(seen.root) is None
            for id, before in list(waiting.items()):
                job = jobs.last(str(seen.root), id)
                if job is None or not job.live:
                    del waiting[id]
                    yield _became(before, job, look())
            if ended and waiting:
                raise RunError(
                    "The vault's daemon has ended meanwhile.", "What was still to run is queued; render again."
                )


def _became(before: Item, job: Job | None, seen: Survey) -> Outcome:
    item = next((one for one in seen.items if one.id == before.id), before)
    seconds = (job.ended_at or 0.0) - (job.began_at or job.ended_at or 0.0) if job else 0.0
    if item.problems:
        first = item.problems[0]
        return Outcome(item, problem=first.message, hint=first.hint, line=first.line)
    if job is not None and job.state != "done":
        return Outcome(item, problem=job.detail or f"It was {job.state}.", seconds=seconds)
    stored = item.stored
    judged = [
        Judgement(claim, cast(Verdict, verdict), "") for claim, verdict in (stored.claims if stored else {}).items()
    ]
    failed = ", ".join(f"“{name}”" for name in stored.failed_checks) if stored else ""
    problem = f"A check failed: {failed}." if failed else ""
    return Outcome(replace(before, stored=stored), None, tuple(judged), problem, wrote=True, seconds=seconds)


def ask_for_trust(root: Path, now: bool) -> None:
    """Where nobody can be asked, here or in a plugin, an untrusted vault is not watched at all."""
    if now:
        trust.trust(root)
    if trust.trusted(root):
        return
    mend = f"To trust it: vaultlab watch {shlex.quote(str(root))} --trust"
    if terminal.interactive():
        terminal.say(trust.MEANS)
        if typer.confirm(f"Trust {root}?"):
            trust.trust(root)
        else:
            terminal.warn(f"Then nothing in it runs by itself. {mend}")
    elif not pairings_of(root).plugin:
        raise NoteError(f"{root} is not trusted on this machine yet. {trust.MEANS}", mend)


def pairings_of(root: Path) -> Pairings:
    return Pairings(made(home(root)))


def _tell(what: Outcome | str) -> None:
    if isinstance(what, str):
        terminal.warn(what)
    else:
        terminal.outcome_line(what)


@contextmanager
def _ending(daemon: "Daemon") -> Iterator[None]:
    """Ctrl-C and SIGTERM end the daemon in order; a second one does not wait."""
    before: dict[int, Any] = {}

    def end(number: int, frame: object) -> None:
        signal.signal(number, before[number])
        daemon.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for ended, handler in before.items():
            signal.signal(ended, handler)


@contextmanager
def _saying(root: Path, daemon: "Daemon") -> Iterator[None]:
    """Tells the other programs of this machine, once a second while something changes, what the daemon does."""
    ended, since = threading.Event(), time.time()

    def on() -> None:
        last: dict[str, Any] = {}
        while True:
            said = {"since": since, "restraint": daemon.restraint, **_said(daemon.status)}
            if said != last:
                with suppress(RunError):  # a full disk: it is said the next time
                    presence.say(root, said)
                    last = said
            if ended.wait(_SAY_S):
                return

    saying = threading.Thread(target=on, daemon=True)
    saying.start()
    try:
        yield
    finally:
        ended.set()
        saying.join()


def _said(status: "Status") -> dict[str, Any]:
    return {"scans": status.scans, "held": status.held, "progress": _progress(status)}


def _progress(status: "Status") -> str:
    step = status.progress
    if step is None:
        return ""
    said = step.phase
    if step.total:
        said += f" {step.done} of {step.total}"
    if step.eta_s is not None:
        said += f", {step.eta_s:.0f} s left"
    if step.memory_bytes:
        said += f", {step.memory_bytes / 2**30:.1f} GiB"
    return said


def _view(root: Path, daemon: "Daemon") -> list[str]:
    """What stands below the lines: what runs and what comes next."""
    status = daemon.status
    lines = _lines(daemon.jobs.pending(), _progress(status))
    return [line for line in (daemon.restraint, _held(status.held, root), *lines) if line]


def _held(count: int, root: Path) -> str:
    return f"{count} blocks wait to be asked for: vaultlab render {shlex.quote(str(root))}" if count else ""


def _lines(pending: list[Job], progress: str, most: int = 8) -> list[str]:
    lines = []
    for place, job in enumerate(pending):
        if job.state == "running":
            since = time.strftime("%H:%M:%S", time.localtime(job.began_at))
            lines.append(f"▶ {job.block}  {progress or 'beginning'}  since {since}  {job.note}")
        elif place < most:
            lines.append(f"… {job.block}  queued: {job.origin}  {job.note}")
    return lines + ([f"… and {len(pending) - most} more"] if len(pending) > most else [])
