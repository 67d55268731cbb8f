"""`standin_ssh.py FOLDER HOST COMMAND…`: a command run elsewhere, as ssh does it, and whatever befalls a line.

Elsewhere is another home, another working folder and none of our variables; no signal gets there, only the end of
stdin. `FOLDER/line` says how the line is: `refused`, `hung`, `cut N` (once, after N more bytes of the answer), or not
there: fine. It is looked at whenever something is to go over the line. `FOLDER/pids` lists what was started elsewhere.
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

FOLDER = Path(sys.argv[1])


def line() -> str:
    try:
        return (FOLDER / "line").read_text().strip()
    except OSError:
        return ""


def hang() -> None:
    while line() == "hung":
        time.sleep(0.02)


def gone(said: str) -> None:
    sys.stderr.write(f"ssh: {said}\n")
    sys.stderr.flush()
    os._exit(255)


def carry(source: BinaryIO, target: BinaryIO, *, answers: bool) -> None:
    sent, bound = 0, None
    while piece := source.read1(2**16):  # type: ignore[attr-defined]
        hang()
        if answers and line().startswith("cut"):
            bound = sent + int(line().split()[1]) if bound is None else bound
            piece, cut = piece[: bound - sent], len(piece) >= bound - sent
        else:
            cut = False
        try:
            target.write(piece)
            target.flush()
        except OSError:
            return  # nobody reads it any more
        sent += len(piece)
        if cut:
            (FOLDER / "line").unlink()
            gone("Connection to box closed by remote host.")
    if not answers:
        target.close()


def main() -> None:
    hang()
    if line() == "refused":
        gone("connect to host box port 22: Connection refused")
    home = FOLDER / "home"
    home.mkdir(exist_ok=True)
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parent.parent)}
    environment["OMP_DISPLAY_ENV"] = "TRUE"  # OpenMP then says on stderr what it goes by
    there = subprocess.Popen(
        ["/bin/sh", "-c", "exec " + " ".join(sys.argv[3:])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=home,
        env=environment,
        start_new_session=True,
    )
    assert there.stdin
    assert there.stdout
    with (FOLDER / "pids").open("a") as pids:
        pids.write(f"{there.pid}\n")
    threading.Thread(target=carry, args=(sys.stdin.buffer, there.stdin), kwargs={"answers": False}, daemon=True).start()
    carry(there.stdout, sys.stdout.buffer, answers=True)  # type: ignore[arg-type]
    code = there.wait()
    if code < 0:
        os._exit(255)  # as ssh does, without a word
    os._exit(code)


main()
