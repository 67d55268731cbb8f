"""The shapes that these modules' annotations state are checked in tests; idle threads sleep, as in a worker."""

import os

from jaxtyping import install_import_hook

# Before torch is imported. Threads that spin while another program computes made the examples fifteen times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

install_import_hook(
    [f"vaultlab.models.{name}" for name in ("weights", "parts", "trace", "verify")], "beartype.beartype"
)
