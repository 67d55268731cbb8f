"""What runs will take, against what the owner of the machine allows and what there is."""

from collections.abc import Sequence

import torch

from vaultlab.errors import RunError
from vaultlab.experiment import Needs
from vaultlab.models.device import free_memory, size_of
from vaultlab.result import Ask, Refusal
from vaultlab.worker.asked import Asked, Refused, Run, shapes
from vaultlab.worker.batches import costs, takes
from vaultlab.worker.course import Course, peak_memory
from vaultlab.worker.residents import Residents


def estimates(it: Asked, runs: Sequence[Run]) -> list[Needs]:
    """What each of these runs will take, where the experiment can say it."""
    needs = it.experiment.needs
    if needs is None:
        return []
    return [needs(run.spec, next(iter(shapes(run)), None)) for run in runs]


def check_limits(it: Asked, course: Course, missing: Sequence[Run], residents: Residents) -> None:
    """Refused where it passes what the owner allows; RunError where it passes what is there."""
    limits, id = course.ask.limits, course.ask.id
    check_points(course.ask, len(missing))
    found = estimates(it, missing)
    if not found:
        return
    most, seconds = max(need.bytes for need in found), takes(costs(it, missing, found))
    smaller = "Take smaller numbers in the block, or a smaller model."
    if limits.memory_bytes and most > limits.memory_bytes:
        took = f"It would take about {size_of(most)} of memory; a run may take {size_of(limits.memory_bytes)} here."
        raise Refused(Refusal(id, took, f"{smaller} The owner of the machine sets the limit."))
    if seconds > 2 * limits.time_s:  # an estimate may be off by a factor of two
        took = f"It would take about {in_words(seconds)}; a run may take {in_words(limits.time_s)} here."
        raise Refused(Refusal(id, took, "Take smaller numbers in the block. The owner of the machine sets the limit."))
    free = _free(course.device, missing, residents)
    if most > free:
        residents.evict()
        free = _free(course.device, missing, residents)
    if most > free:
        there = f"It would take about {size_of(most)} of memory; {size_of(free)} are free on {course.device}."
        raise RunError(there, f"{smaller} Closing other programs may help too.")


def _free(device: torch.device, missing: Sequence[Run], residents: Residents) -> int:
    """Bytes for these runs: what is free, and on a GPU their models' weights that are there already."""
    names = {getattr(run.spec, field) for run in missing for field in run.models}
    there = sum(residents.bytes(name, device) for name in names) if device.type != "cpu" else 0  # there it is a file's
    return free_memory(device) + there


def check_points(ask: Ask, missing: int) -> None:
    """Refused where more points are to be computed than run by themselves. What is stored does not count."""
    if ask.points and missing > ask.limits.points:
        raise Refused(
            Refusal(
                ask.id,
                f"{missing} points of this sweep are to be run; more than {ask.limits.points} run only when asked for.",
                f"Run this very block: with its Run button, or vaultlab render --id {ask.id}",
                field="sweep",
            )
        )


def no_memory(course: Course, found: Sequence[Needs]) -> RunError:
    """The memory ran out, with half the batch too; `found` is what was estimated for what is not done yet."""
    other = "" if course.device.type == "cpu" else ", or another device: `--device cpu`"
    needed = f", for an estimated {size_of(max(need.bytes for need in found))}" if found else ""
    peak, free = size_of(peak_memory(course.device)), size_of(free_memory(course.device))
    return RunError(
        f"The memory of {course.device} was not enough, not with half the batch either: "
        f"at most {peak} were taken{needed}, and {free} are free.",
        f"Take smaller numbers in the block or a smaller model{other}. Closing other programs may help too.",
    )


def in_words(seconds: float) -> str:
    """90 s, 10 minutes, 3 hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.0f} hours"
