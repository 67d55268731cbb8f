"""The words you type: all of them in one place, and what becomes of their errors."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from vaultlab import __version__, terminal
from vaultlab.commands import bench, models, vault
from vaultlab.commands.words import MACHINE, USE
from vaultlab.errors import NoteError, VaultlabError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Claims in Obsidian notes that run.\n\nBegin with `vaultlab init VAULT`, then `vaultlab render VAULT`.",
    epilog="Exit codes: 0 fine · 1 a result or a claim fails · 2 wrong use · 3 the machine",
)
_VERBS: tuple[Callable[..., None], ...] = (
    *(vault.render, vault.check, vault.accept, vault.why, vault.clean, vault.init),
    *(bench.run, bench.experiments, bench.new, bench.doctor),
)
for verb in _VERBS:
    app.command()(verb)
app.add_typer(models.app, name="models")


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
