"""The templates of what vaultlab writes. The owner of the machine may override them, a vault may not."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from vaultlab.errors import RunError

MAX_CHARS = 2_000_000
_PACKAGE = Path(__file__).resolve().parent.parent
# Inside the package once installed, beside it in a checkout.
_OWN = (_PACKAGE / "templates", _PACKAGE.parent / "templates")


def render(name: str, said: Mapping[str, Any], overrides: Path | None = None) -> str:
    """A template filled in; RunError where an owner's template is broken or its output never ends."""
    written = 0
    pieces = []
    try:
        for piece in _environment(overrides).get_template(name).generate(said):
            written += len(piece)
            if written > MAX_CHARS:
                raise RunError(f"The template `{name}` writes more than {MAX_CHARS} characters.", "Shorten it.")
            pieces.append(piece)
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, MemoryError) as error:
        where = overrides or _OWN[0]
        why = str(error).rstrip(".") or type(error).__name__
        raise RunError(f"The template `{name}` does not work: {why}.", f"Mend it in {where}.") from error
    return "".join(pieces).strip("\n") + "\n"


@cache
def _environment(overrides: Path | None) -> ImmutableSandboxedEnvironment:
    folders = ([overrides] if overrides else []) + list(_OWN)
    return ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(folders),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
