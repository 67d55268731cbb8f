"""How a run ends that the worker has no answer for, and what a worker on another machine says, as it is read here."""

import re

from vaultlab.result import Ask, Failure

LOG_HINT = "`vaultlab doctor` says where the log is; run the block again, for the next run gets a new worker."
_COMMAND = re.compile("`(vaultlab models [^`]*)`")


def cancelled(ask: Ask) -> Failure:
    """Somebody did not want it any more."""
    return Failure(ask.id, "cancelled", "The run was cancelled.", "Run the block again to go on with it.")


def overdue(ask: Ask) -> Failure:
    """It had to be stopped."""
    return Failure(
        ask.id,
        "environment",
        f"The run was stopped: it had not ended after {ask.limits.time_s:.0f} s, which is how long a run may take.",
        "Take smaller numbers in the block. The owner of the machine sets the limit.",
    )


def died(ask: Ask, who: str, cause: str, said: str) -> Failure:
    """The worker's process ended during it; `said` were its last words."""
    words = f"Its last words: {said}. " if said else ""
    return Failure(ask.id, "environment", f"{who} died during this run: {cause}.", words + LOG_HINT)


def quarantined(ask: Ask, deaths: int) -> Failure:
    """It has taken the worker down too often."""
    return Failure(
        ask.id,
        "environment",
        f"This run of `{ask.experiment}` has taken the worker down {deaths} times; it is not tried again by itself.",
        "Change the block, or insist with `--id ID --force`. `vaultlab doctor` says where the log is.",
    )


def from_afar(worker: str, message: str, hint: str) -> tuple[str, str]:
    """Both as they are read here: they are about the worker's machine, and the commands in them are typed on this."""
    return f"On `{worker}`: {message}", _COMMAND.sub(rf"`\1 --device {worker}`", hint)
