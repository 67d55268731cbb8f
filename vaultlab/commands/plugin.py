"""The word about the plugin for Obsidian: put what was built into a vault."""

from pathlib import Path

import typer

from vaultlab import terminal
from vaultlab.commands.words import VaultArg, root_of
from vaultlab.errors import RunError
from vaultlab.vault import files
from vaultlab.vault.config import obsidian_folder

app = typer.Typer(no_args_is_help=True, help="The plugin for Obsidian. Example: `vaultlab plugin install ~/Notes`")

FILES = ("main.js", "manifest.json", "styles.css")
_PACKAGE = Path(__file__).resolve().parent.parent
# Inside the package once installed, beside it in a checkout.
_BUILDS = (_PACKAGE / "plugin", _PACKAGE.parent / "obsidian-plugin/dist")


@app.callback()
def _plugin() -> None:
    """With one word only, typer would leave that word out."""


@app.command()
def install(vault: VaultArg = None) -> None:
    """Put the plugin into a vault, where Obsidian looks for it; its settings stay as they are.

    Example: `vaultlab plugin install ~/Notes`
    """
    root = root_of(vault)
    build = next((folder for folder in _BUILDS if all((folder / name).is_file() for name in FILES)), None)
    if build is None:
        raise RunError("The plugin has not been built here.", "Build it with Node.js 20 or newer: make plugin")
    folder = obsidian_folder(root).relative_to(root) / "plugins/vaultlab"
    wrote = [
        files.replace(files.inside(root, (folder / name).as_posix()), (build / name).read_bytes()) for name in FILES
    ]
    terminal.say(f"{'Put the plugin into' if any(wrote) else 'The plugin is already in'} {root / folder}.")
    terminal.say("Next, in Obsidian: Settings, Community plugins, turn on Vaultlab; then `vaultlab watch` and pair.")
