"""10 000 generated notes, 1 000 of them with blocks: the first look at a vault, and a look when nothing has changed.

The whole survey: parsing, ids, the state of every block. At most 3 s and 0.5 s are wanted.
"""

import os
import tempfile
import time
from pathlib import Path

from vaultlab import catalogue, places
from vaultlab.lab import Lab
from vaultlab.survey import survey

NOTES, EVERY = 10_000, 10
WANTED = {"first look": 3.0, "nothing changed": 0.5}
WORDS = "Words on features, neurons and circuits, with a [[Note 7|link]], *stress* and a claim or two in a line.\n"
BLOCK = """
```vaultlab
superposition: toy-{number}
features: 5
hidden: 2
sparsity: 95%
expect:
  - represented = 5 in 90% of seeds
```
"""


def note(number: int) -> str:
    tag, block = ("experiment", BLOCK.format(number=number)) if number % EVERY == 0 else ("reading", "")
    return f"---\ntags: [{tag}]\n---\n# Note {number}\n\n{WORDS * 12}{block}\n{WORDS * 6}"


def generate(root: Path) -> None:
    before = time.time() - 3600
    for number in range(NOTES):
        path = root / f"Folder {number % 97}/Note {number}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(note(number), encoding="utf-8")
        os.utime(path, (before, before))


def main() -> None:
    with Lab() as lab:
        experiments = catalogue.load(lab.describe)
    with tempfile.TemporaryDirectory() as folder:
        places.state_dir = lambda: Path(folder) / "state"
        root = Path(folder) / "vault"
        generate(root)
        for name, most in WANTED.items():
            start = time.perf_counter()
            found = survey(root, root.parent, experiments)
            took = time.perf_counter() - start
            assert len(found.items) == NOTES / EVERY
            assert {item.state for item in found.items} == {"missing"}
            print(f"vault  {name:15}  {took:5.2f} s (at most {most} s)")


if __name__ == "__main__":
    main()
