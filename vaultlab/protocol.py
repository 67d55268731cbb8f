"""What crosses between the daemon and those who ask it over HTTP: the endpoints, and the shape of every ask and answer.

Plain declarations: the server answers by them, the OpenAPI document is made from them, a client needs nothing else.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, RootModel

from vaultlab.notes.splice import Edit as Splice
from vaultlab.result import Verdict

PROTOCOL = 1
"""Raised whenever an older plugin or command line could no longer talk to this daemon."""

WAIT_S = 25
"""How long a poll for events may wait."""

State = Literal["error", "missing", "fresh", "reworded", "stale", "failed", "outdated", "reread", "large"]
Happening = Literal[
    "queued", "loading", "running", "done", "failed", "cancelled", "superseded", "stale", "edit", "plan"
]


class Wire(BaseModel):
    """Everything that crosses is closed, frozen and strict."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


_START, _REST = r"[^./\\\x00-\x1f\x7f]", r"[^/\\\x00-\x1f\x7f]"
# Never absolute, no `..`, nothing hidden, no other system's separator. Whether a link leads out of the vault is for
# for the disk to say.
NotePath = Annotated[str, Field(max_length=1000, pattern=rf"^({_START}{_REST}*/)*{_START}{_REST}*\.md$")]
BlockId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Hex16 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Mark = Annotated[str, Field(pattern=r"^[0-9a-f]{16}\.(0|[1-9][0-9]{0,14})$")]
"""The number of an event: the daemon's epoch, a dot, and a count from 0."""


class Problem(Wire):
    """What stands in the way, and the mend. `line` is the note's, from 1; `field` the block's key."""

    message: str
    hint: str = ""
    line: int | None = None
    field: str | None = None


class PairAsk(Wire):
    """Signed with the code: who wants to be paired, in words that its owner would know it by."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Paired(Wire):
    """Signed with the new key: `HKDF(code, ask's nonce + this nonce, "vaultlab key " + device)`."""

    device: Hex16
    nonce: Hex16


class Queue(Wire):
    """How many runs wait, and the one that is running."""

    queued: int
    running: RunId | None = None


class Hello(Wire):
    """Who answers. `vault` is its folder's name; `last` the number of the latest event: poll from there.

    `devices` and `models` are the worker's, empty until it has said so. Until the vault is `trusted` nothing runs and
    nothing is written; `trust` says in a sentence what trusting it means. `notices` are sentences for its owner: why
    nothing runs by itself, what waits to be asked for.
    """

    protocol: int
    version: str
    epoch: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    last: Mark
    vault: str
    machine: str
    devices: tuple[str, ...]
    models: tuple[str, ...]
    queue: Queue
    trusted: bool = True
    trust: str = ""
    by_hand: bool = False
    """Blocks run only when they are asked to."""
    notices: tuple[str, ...] = ()


class Example(Wire):
    """A block whose answer is known: its title states it, `expect` are the claims that hold."""

    title: str
    fields: Mapping[str, JsonValue]
    expect: tuple[str, ...]


class Experiment(Wire):
    """One experiment of the catalogue: `fields` is the JSON schema of what a block may set."""

    version: int
    title: str
    page: str
    fields: Mapping[str, JsonValue]
    metrics: tuple[Mapping[str, JsonValue], ...]
    examples: tuple[Example, ...]
    interactive: bool = False
    """Whether its results have `data` that an interactive figure can be drawn from."""


class Experiments(Wire):
    """Name → experiment. `broken` says of the others what is wrong with their file."""

    experiments: Mapping[str, Experiment]
    broken: Mapping[str, str] = {}


class Insertion(Wire):
    """`insert` goes in at `offset`, in UTF-16 units, of a text with this hash (of its UTF-8), and of no other."""

    base_sha256: Sha256
    offset: Annotated[int, Field(ge=0)]
    insert: str


class Edit(Insertion):
    """What the daemon puts into a note.

    Whoever makes it first says `taken`, makes it within ten seconds of having asked that, and only if the answer was
    200: so a block gets one embed, whoever else is writing. A note that no editor has open is left alone until its
    file has been quiet for five seconds.
    """

    id: RunId
    path: NotePath


class PlanAsk(Wire):
    """A note as it stands in the editor, saved or not."""

    path: NotePath
    text: str


class Last(Wire):
    """What a block's result note says now. `key` is its result's: another key, other numbers and figures.

    `claims`: claim → verdict; `headline`: metric → number; `figures`: name → the file's path in the vault.
    """

    note: NotePath
    status: Literal["done", "failed"]
    key: str = ""
    verdict: Verdict | None = None
    claims: Mapping[str, Verdict] = {}
    headline: Mapping[str, JsonValue] = {}
    figures: Mapping[str, str] = {}


class PlannedBlock(Wire):
    """A block of the note. `start` and `end` are the lines of its fences, from 1; `sha256` is of what stands between
    them as Markdown sees it (no container's prefix, lines joined by a line feed), and is what a run is asked with.

    `fields` are what it would run with, those of its note and its vault included. `run` is the run that is queued or
    under way for it, `edit` what places the embed that is owed to this very text.
    """

    id: BlockId | None
    experiment: str | None
    title: str
    start: int
    end: int
    sha256: Sha256
    state: State
    why: str
    problems: tuple[Problem, ...] = ()
    fields: Mapping[str, JsonValue] = {}
    run: RunId | None = None
    last: Last | None = None
    edit: Edit | None = None


class Planned(Wire):
    """What vaultlab makes of a note. One that takes no part has blocks all the same, so that none is silent; `partake`
    is what would change that, for its author to say.
    """

    takes_part: bool
    partake: Insertion | None = None
    problems: tuple[Problem, ...]
    blocks: tuple[PlannedBlock, ...]


class RunAsk(Wire):
    """Run this block as it stands in the saved note: `block_sha256` is its hash in the plan."""

    path: NotePath
    id: BlockId
    block_sha256: Sha256


class Queued(Wire):
    """`place` counts from 1, 0 is running; `why` says in words what it waits for."""

    run: RunId
    place: int
    why: str = ""


class Cancelled(Wire):
    """`cancelled` is false where the run had ended already."""

    run: RunId
    cancelled: bool


class Event(Wire):
    """One thing that happened, to a run or to a note; only what belongs to its kind is set. `plan`: more is known of a
    note now than when it was planned."""

    number: Mark
    kind: Happening
    path: NotePath | None = None
    id: BlockId | None = None
    run: RunId | None = None
    place: int | None = None
    why: str = ""
    phase: str = ""
    done: int | None = None
    total: int | None = None
    eta_s: float | None = None
    memory_bytes: int | None = None
    problem: Problem | None = None
    edit: Edit | None = None


class EventsAsk(Wire):
    """`after` is the last number that was seen; without it, all that the daemon remembers."""

    after: Mark | None = None
    wait: Annotated[int, Field(ge=0, le=WAIT_S)] = 0
    """Seconds to wait for an event if there is none."""


class Events(Wire):
    """What has happened since. `missed`: some of it is no longer known (another epoch, or too long ago): plan anew."""

    last: Mark
    missed: bool = False
    events: tuple[Event, ...] = ()


class Outcome(Wire):
    """What becomes of an edit: taken (it is about to be made; 409 if it is not wanted any more), applied (it is made,
    and the note saved), deferred (not now: it comes again), conflict (the text is another one by now: plan that)."""

    outcome: Literal["taken", "applied", "deferred", "conflict"]


class TrustAsk(Wire):
    """Trust this vault on this machine from now on, or no longer."""

    trusted: bool


class PaceAsk(Wire):
    """Run blocks only when they are asked to, or by themselves too when they are new or changed."""

    by_hand: bool


class Noted(Wire):
    """Understood; there is nothing to say."""


class Artifact(Wire):
    """A figure of a block's last result, and what it shows in words; or, as `data`, the JSON that an interactive figure
    is drawn from. `content` is the file in base64."""

    kind: Literal["svg", "png", "json"]
    content: str
    alt: str = ""


class OpenApi(RootModel[dict[str, JsonValue]]):
    """An OpenAPI 3.1 document: this one."""


@dataclass(frozen=True)
class Verbs:
    """What the daemon does when it is asked. Called on several threads at once; None: there is no such thing.

    NoteError is answered with 422, VaultError (the note is not as it was said to be) with 409, RunError with 503.
    Only `run` may wait, for 3 s at most. `edit` gets the edit's id, `artifact` the block's id and a figure's name.
    """

    hello: Callable[[], Hello]
    experiments: Callable[[], Experiments]
    plan: Callable[[PlanAsk], Planned]
    run: Callable[[RunAsk], Queued]
    cancel: Callable[[str], Cancelled | None]
    events: Callable[[str | None], Events]
    edit: Callable[[str, Outcome], Noted | None]
    artifact: Callable[[str, str], Artifact | None]
    trust: Callable[[TrustAsk], Noted]
    pace: Callable[[PaceAsk], Noted]


@dataclass(frozen=True)
class Endpoint:
    """One word of the protocol: `verb` is the name of the one among `Verbs` that answers."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    verb: str
    help: str
    answer: type[BaseModel]
    body: type[Wire] | None = None
    query: type[Wire] | None = None


ENDPOINTS = (
    Endpoint("POST", "/v1/pair", "pair", "Exchange a code for a key; signed with the code.", Paired, PairAsk),
    Endpoint("GET", "/v1/hello", "hello", "Who is there, and that it has the key: ask this first.", Hello),
    Endpoint("GET", "/v1/experiments", "experiments", "The catalogue: what a block may say.", Experiments),
    Endpoint("POST", "/v1/plan", "plan", "A note's text to its blocks, what they are, and edits.", Planned, PlanAsk),
    Endpoint("POST", "/v1/runs", "run", "Run a block of a saved note, ahead of the rest.", Queued, RunAsk),
    Endpoint("DELETE", "/v1/runs/{run}", "cancel", "Cancel a run that waits or is under way.", Cancelled),
    Endpoint("GET", "/v1/events", "events", "What has happened since; waits for it.", Events, query=EventsAsk),
    Endpoint("POST", "/v1/edits/{edit}", "edit", "What became of an edit asked by an event.", Noted, Outcome),
    Endpoint("GET", "/v1/blocks/{block}/artifacts/{name}", "artifact", "A figure of a result, or its data.", Artifact),
    Endpoint("POST", "/v1/trust", "trust", "Trust this vault, or no longer.", Noted, TrustAsk),
    Endpoint("POST", "/v1/pace", "pace", "Run what changes by itself, or only by hand.", Noted, PaceAsk),
    Endpoint("GET", "/v1/openapi.json", "openapi", "This document.", OpenApi),
)
PARAMS = {
    "run": re.compile("[A-Za-z0-9_-]{1,64}"),
    "edit": re.compile("[A-Za-z0-9_-]{1,64}"),
    "block": re.compile("[a-z0-9][a-z0-9-]{0,63}"),
    "name": re.compile("[a-z0-9][a-z0-9_-]{0,63}"),
}
"""What stands in a path: name → what it must look like."""
HEADERS = {
    "protocol": "X-Vaultlab-Protocol",
    "device": "X-Vaultlab-Device",
    "time": "X-Vaultlab-Time",
    "nonce": "X-Vaultlab-Nonce",
    "mac": "X-Vaultlab-Mac",
}
"""What a request is signed with; an answer has the last one only."""


def as_edit(id: str, path: str, text: str, base_sha256: str, splice: Splice) -> Edit:
    """An edit as it crosses."""
    return Edit(id=id, path=path, **as_insertion(text, base_sha256, splice).model_dump())


def as_insertion(text: str, base_sha256: str, splice: Splice) -> Insertion:
    """What goes into a text, as it crosses: editors count in UTF-16, Python in characters."""
    offset = len(text[: splice.offset].encode("utf-16-le", "surrogatepass")) // 2
    return Insertion(base_sha256=base_sha256, offset=offset, insert=splice.insert)


def presence_name(machine: str) -> str:
    """The file, within `.vaultlab/`, where this machine's daemon says that it is there."""
    return f"daemon-{re.sub('[^a-z0-9-]+', '-', machine.casefold()).strip('-') or 'machine'}.json"


def presence(port: int, machine: str, since: int, beat: int, pid: int | None = None) -> dict[str, int | str]:
    """What that file says: no secret and no host, for vaults get synced. Times in seconds since the epoch."""
    who: dict[str, int | str] = {"protocol": PROTOCOL, "port": port, "pid": pid or os.getpid(), "machine": machine}
    return {**who, "since": since, "beat": beat}
