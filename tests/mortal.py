"""What `test_kills.py` kills: a daemon of its own process, and a worker that keeps what it has finished.

python -m tests.mortal daemon ROOT STORE      a real daemon, queue and pipeline, in short quiet times
python -m tests.mortal worker STORE           speaks the worker's protocol; a result is whole or absent in STORE
"""

import hashlib
import json
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from tests.test_pipeline import DOUBLE, answer
from vaultlab import daemon, pipeline
from vaultlab.catalogue import Catalogue
from vaultlab.daemon import Daemon, Way
from vaultlab.jobs import Jobs
from vaultlab.lab import Lab
from vaultlab.process import PROTOCOL
from vaultlab.result import Ask, decode, encode
from vaultlab.survey import survey
from vaultlab.vault import presence
from vaultlab.vault.config import Config
from vaultlab.vault.presence import queue_of
from vaultlab.vault.watch import Watch

RUN_S, QUIET_S = 0.1, 0.3
WORK_S, STEPS = 0.06, 6


def watch(root: Path, store: Path) -> None:
    daemon.RUN_S = RUN_S
    daemon.QUIET_S = pipeline.QUIET_S = QUIET_S
    look = partial(survey, root, root.parent / "config", Catalogue({"double": DOUBLE}))
    with presence.attend(root), Lab((sys.executable, "-m", "tests.mortal", "worker", str(store))) as lab:
        way = Way(lab.ask, lab.cancel, lab.deaths)
        living = Daemon(root, look, way, Jobs(queue_of(root)), lambda told: None)
        living.serve(Watch(root, Config, living.changes.add))


def work(store: Path) -> None:
    (store / f"worker-{os.getpid()}").touch()
    waiting: list[dict[str, Any]] = []
    arrived = threading.Condition()

    def read() -> None:
        for line in sys.stdin:
            request = json.loads(line)
            if request["do"] == "run":
                with arrived:
                    waiting.append(request)
                    arrived.notify()
        os._exit(0)

    _say(0, "hello", {"protocol": PROTOCOL, "vaultlab": "0", "pid": os.getpid()})
    threading.Thread(target=read, daemon=True).start()
    while True:
        with arrived:
            while not waiting:
                arrived.wait()
            request = waiting.pop(0)
        _run(request["id"], decode(Ask, request["ask"]), store)


def _run(id: int, ask: Ask, store: Path) -> None:
    _say(id, "started", None)
    key = hashlib.sha256(json.dumps([ask.id, dict(ask.fields)], sort_keys=True).encode()).hexdigest()
    kept = store / f"{key}.json"
    if not kept.exists():
        for done in range(STEPS):
            time.sleep(WORK_S / STEPS)
            _say(id, "progress", {"id": ask.id, "phase": "counting", "done": done, "total": STEPS})
        beside = store / f".{key}.{os.getpid()}"
        beside.write_text(json.dumps({**encode(answer(ask)), "key": key}))
        with (store / "finished").open("a") as log:
            beside.rename(kept)
            log.write(f"{key}\n")
    _say(id, "result", json.loads(kept.read_text()))


def _say(id: int, kind: str, body: Any) -> None:
    sys.stdout.write(json.dumps({"id": id, "is": kind, "body": body}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    words = [Path(word) for word in sys.argv[2:]]
    watch(*words) if sys.argv[1] == "daemon" else work(*words)
