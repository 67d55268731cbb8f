"""The points of a sweep as one result."""

from vaultlab.result import Check
from vaultlab.worker.sweep import _worst


def test_the_worst_check_is_the_nearest_to_its_limit() -> None:
    nan, inf = float("nan"), float("inf")
    near, far = Check("a", 0.9e-5, 1e-5), Check("a", 0.5, 1.0)
    assert _worst([far, near]) == _worst([near, far]) == (near,)
    for broken in (Check("a", nan, 1.0), Check("a", inf, 1.0), Check("a", 1e-9, 0.0)):
        assert _worst([near, broken, far]) == _worst([broken, near]) == (broken,)
    assert _worst([Check("a", 0.0, 0.0), near]) == (near,)
