"""`make bench`: every bench in a process of its own, one after another. Names given as arguments run alone."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # as a worker has it


def main() -> None:
    names = sys.argv[1:] or sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))
    for name in names:
        subprocess.run([sys.executable, "-m", f"tests.bench.{name}"], check=True, cwd=HERE.parents[1], env=ENVIRONMENT)


if __name__ == "__main__":
    main()
