"""Every shape that these modules' annotations state is checked while the tests run."""

from jaxtyping import install_import_hook

install_import_hook(
    [f"vaultlab.models.{name}" for name in ("weights", "parts", "trace", "verify")], "beartype.beartype"
)
