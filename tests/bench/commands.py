"""Whole commands as a user types them: `--help`, and `render` where there is nothing to do.

At most 0.5 s and 1 s are wanted; the second starts no worker and changes no byte and no time of the vault.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

SAMPLE = Path(__file__).parents[2] / "sample-vault"
ROUNDS = 5
WANTED_HELP_S, WANTED_RENDER_S = 0.5, 1.0


def timed(*words: str) -> float:
    took = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", "from vaultlab.cli import main; main()", *words], check=True, capture_output=True
        )
        took.append(time.perf_counter() - start)
    return median(took)


def standing(root: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}


def main() -> None:
    print(f"commands  --help               {timed('--help'):.2f} s (at most {WANTED_HELP_S} s)")
    with tempfile.TemporaryDirectory() as folder:
        vault = Path(folder) / "vault"
        shutil.copytree(SAMPLE, vault)
        timed("render", str(vault), "--dry-run")
        before = standing(vault)
        took = timed("render", str(vault))
        assert standing(vault) == before
    print(f"commands  render, nothing new  {took:.2f} s (at most {WANTED_RENDER_S} s)")


if __name__ == "__main__":
    main()
