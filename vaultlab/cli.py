"""The words you type: all of them in one place, and what becomes of their errors."""

import contextlib
import logging
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from vaultlab import __version__, terminal
from vaultlab.commands import bench, models, plugin, service, stress, vault, watch
from vaultlab.commands.words import MACHINE, USE
from vaultlab.errors import NoteError, VaultlabError
from vaultlab.process import logs

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Claims in Obsidian notes that run.\n\nBegin with `vaultlab init VAULT`, then `vaultlab render VAULT`.",
    epilog="Exit codes: 0 fine · 1 a result or a claim fails · 2 wrong use · 3 the machine",
)
_VERBS: tuple[Callable[..., None], ...] = (
    *(vault.render, vault.check, vault.accept, vault.why, vault.clean, vault.init),
    stress.stress,
    *(watch.watch, watch.status, watch.pair, watch.stop),
    *(bench.run, bench.experiments, bench.new, bench.doctor),
)
for verb in _VERBS:
    app.command()(verb)
app.add_typer(models.app, name="models")
app.add_typer(service.app, name="service")
app.add_typer(plugin.app, name="plugin")


def main() -> None:
    """The entry point: every error that has a sentence ends as that sentence and its exit code."""
    _keep_log()
    try:
        app()
    except NoteError as error:
        terminal.fail(error)
        sys.exit(USE)
    except VaultlabError as error:
        terminal.fail(error)
        sys.exit(MACHINE)


def _keep_log() -> None:
    """A fault's traceback goes to a file: the author gets a sentence."""
    with contextlib.suppress(OSError):
        logs().mkdir(parents=True, exist_ok=True)
    logging.raiseExceptions = False
    handler = logging.FileHandler(logs() / "vaultlab.log", encoding="utf-8", delay=True)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")


@app.callback(invoke_without_command=True)
def _main(say_version: Annotated[bool, typer.Option("--version", help="Say the version and stop.")] = False) -> None:
    if say_version:
        terminal.say(f"vaultlab {__version__}")
        raise typer.Exit
