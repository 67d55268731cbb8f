"""A process that speaks the worker's protocol and does what `fields["acts"]` of an Ask says, one act after the other.

It starts in a few hundredths of a second, so that tests can let it die at every point.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

ANSWER = {"key": "k", "cached": False, "metrics": [], "checks": [], "figures": {}}


def say(id: int, kind: str, body: Any) -> None:
    sys.stdout.write(json.dumps({"id": id, "is": kind, "body": body}) + "\n")
    sys.stdout.flush()


def raw(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


cancelled: set[int] = set()
devices: dict[int, Any] = {}


def act(what: str, id: int, name: str) -> None:
    match what:
        case "exit":
            print("RuntimeError: the disk is on fire", file=sys.stderr, flush=True)
            os._exit(3)
        case "kill" | "segv" | "term":
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "segv": signal.SIGSEGV, "term": signal.SIGTERM}[what])
        case "close":
            os.close(1)
            time.sleep(60)
        case "child":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            print(f"child {child.pid}", file=sys.stderr, flush=True)
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case "hang":
            time.sleep(60)
        case "wait":
            while id not in cancelled:
                time.sleep(0.005)
            say(id, "failure", {"id": name, "kind": "cancelled", "message": "cancelled by the flag"})
        case "nap":
            time.sleep(0.3)
        case "progress":
            say(id, "progress", {"id": name, "phase": "working", "done": 1, "total": 2})
        case "garbage":
            raw('loading…\n{"id": 1\n\x00\n[1, 2]\n"text"\n{"id": 77, "is": "result", "body": {}}\n{}\n')
        case "giant":
            raw(" " * 3_000_000 + "\n")
        case "endless":
            while True:
                raw(" " * 1_000_000)
        case "half":
            raw('{"id": ' + str(id) + ', "is": "res')
            os._exit(0)
        case "nonsense":
            say(id, "result", {"unexpected": True})
        case "where":
            say(id, "result", {"id": name, **ANSWER, "summary": f"{os.getpid()} {os.environ['HOME']}"})
        case "device":
            summary = json.dumps([devices[id], os.environ.get("CUDA_VISIBLE_DEVICES")])
            say(id, "result", {"id": name, **ANSWER, "summary": summary})
        case "big":
            say(id, "result", {"id": name, **ANSWER, "summary": "big " * 100_000})


def serve(first: str) -> None:
    if first == "mute":
        time.sleep(60)
    if first == "fail":
        print("ModuleNotFoundError: No module named 'torch'", file=sys.stderr, flush=True)
        sys.exit(1)
    raw("printed by an import without a line end\n")
    protocol = 0 if first == "old" else 2
    say(0, "hello", {"protocol": protocol, "vaultlab": "0", "pid": os.getpid()})
    waiting: list[dict[str, Any]] = []
    arrived = threading.Condition()

    def read() -> None:
        for line in sys.stdin:
            request = json.loads(line)
            if request["do"] == "cancel":
                cancelled.add(request["run"])
            elif request["do"] == "run":
                with arrived:
                    waiting.append(request)
                    arrived.notify()
            elif request["do"] == "describe":
                say(request["id"], "reply", {"vaultlab": "0", "experiments": {}})
            elif request["do"] == "here":
                say(request["id"], "reply", {"devices": ["cuda:0", "cpu"], "models": ["m"]})
            elif request["do"] == "plan":
                act(request["ask"]["fields"].get("plan", ""), request["id"], "")
                say(request["id"], "reply", {"id": request["ask"]["id"], "key": "k"})
            elif request["do"] == "models":
                say(request["id"], "progress", {"id": "m", "phase": "fetching", "done": 0, "total": 1})
                if request["action"] == "list":
                    say(request["id"], "reply", [{"name": "m", "args": sys.argv[1:]}])
                else:
                    by = "author" if request["action"] == "find" else "machine"
                    say(request["id"], "error", {"by": by, "message": "no such model", "hint": "pull it"})
            else:
                say(request["id"], "reply", len(request.get("keys", ())))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        with arrived:
            while not waiting:
                arrived.wait()
            request = waiting.pop(0)
        id, ask = request["id"], request["ask"]
        if "early" in ask["fields"]:
            act(ask["fields"]["early"], id, ask["id"])
        devices[id] = ask["device"]
        say(id, "started", None)
        acts = ask["fields"].get("acts", [])
        if "alone" in acts and ask["beside"]:
            act("kill", id, ask["id"])
        for what in acts:
            act(what, id, ask["id"])
        if not {"wait", "nonsense", "where", "device", "big"} & set(acts):
            say(id, "result", {"id": ask["id"], **ANSWER})


serve(sys.argv[1] if len(sys.argv) > 1 else "")
