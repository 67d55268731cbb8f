"""The words about models: list, find, pull, add, remove."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vaultlab import terminal
from vaultlab.commands.words import Device, Json, lab_on

app = typer.Typer(
    no_args_is_help=True, help="The models that notes may name. Example: `vaultlab models pull smollm2-135m`"
)


@app.command("list")
def models_list(device: Device = None, as_json: Json = False) -> None:
    """The models on this machine. Example: `vaultlab models list`"""
    _models("list", device, as_json)


@app.command("find")
def models_find(word: str, device: Device = None, as_json: Json = False) -> None:
    """The models whose name has this word. Example: `vaultlab models find smol`"""
    _models("find", device, as_json, word=word)


@app.command("pull")
def models_pull(
    name: Annotated[str, typer.Argument(help="smollm2-135m, or ORG/NAME or ORG/NAME@REV of the Hugging Face hub.")],
    device: Device = None,
) -> None:
    """Fetch a model, convert and verify it. Example: `vaultlab models pull smollm2-135m`"""
    _models("pull", device, name=name)


@app.command("add")
def models_add(name: str, path: Path, device: Device = None) -> None:
    """Add a model from a folder, a safetensors or a GGUF file. Example: `vaultlab models add mine ./checkpoint`"""
    _models("add", device, name=name, path=str(path))


@app.command("remove")
def models_remove(name: str, device: Device = None) -> None:
    """Remove a model from this machine. Example: `vaultlab models remove mine`"""
    _models("remove", device, name=name)


def _models(action: str, device: str | None, as_json: bool = False, **arguments: Any) -> None:
    with lab_on(device) as lab, terminal.progress() as bar:
        if "path" in arguments and not lab.far:  # on another machine it is a path there
            arguments["path"] = str(Path(arguments["path"]).resolve())
        found = lab.models(action, lambda step: bar.step(arguments.get("name", action), step), **arguments)
    if as_json:
        terminal.dump(found)
    elif action == "remove":
        terminal.say(f"`{arguments['name']}` is removed.")
    elif action == "find" and found:
        terminal.table(found, ("name", "where", "about"))
    elif action == "find":
        terminal.say(f"No model has `{arguments['word']}` in its name. One of the hub is fetched by its own: ORG/NAME.")
    elif found:
        shown = [{**model, "parameters": f"{model['parameters'] / 1e6:.3g} M"} for model in found]
        terminal.table(shown, ("name", "family", "parameters", "dtype", "source"))
    else:
        where, option = (f"on `{lab.far}`", f" --device {lab.far}") if lab.far else ("here", "")
        terminal.say(f"No model {where} yet. Fetch one: vaultlab models pull smollm2-135m{option}")
