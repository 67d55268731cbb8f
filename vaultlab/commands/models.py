"""The words about models: list, find, pull, add, remove."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vaultlab import terminal
from vaultlab.commands.words import Json
from vaultlab.lab import Lab

app = typer.Typer(
    no_args_is_help=True, help="The models that notes may name. Example: `vaultlab models pull smollm2-135m`"
)


@app.command("list")
def models_list(as_json: Json = False) -> None:
    """The models on this machine. Example: `vaultlab models list`"""
    _models("list", as_json)


@app.command("find")
def models_find(word: str, as_json: Json = False) -> None:
    """The models whose name has this word. Example: `vaultlab models find smol`"""
    _models("find", as_json, word=word)


@app.command("pull")
def models_pull(
    name: Annotated[str, typer.Argument(help="smollm2-135m, or ORG/NAME or ORG/NAME@REV of the Hugging Face hub.")],
) -> None:
    """Fetch a model, convert and verify it. Example: `vaultlab models pull smollm2-135m`"""
    _models("pull", name=name)


@app.command("add")
def models_add(name: str, path: Path) -> None:
    """Add a model from a folder, a safetensors or a GGUF file. Example: `vaultlab models add mine ./checkpoint`"""
    _models("add", name=name, path=str(path.resolve()))


@app.command("remove")
def models_remove(name: str) -> None:
    """Remove a model from this machine. Example: `vaultlab models remove mine`"""
    _models("remove", name=name)


def _models(action: str, as_json: bool = False, **arguments: Any) -> None:
    with Lab() as lab, terminal.progress() as bar:
        found = lab.models(action, lambda step: bar.step(arguments.get("name", action), step), **arguments)
    if as_json:
        terminal.dump(found)
    elif found:
        terminal.table(found, ("name", "family", "parameters", "dtype", "source"))
    else:
        terminal.say("No model here yet. Fetch one: vaultlab models pull smollm2-135m")
