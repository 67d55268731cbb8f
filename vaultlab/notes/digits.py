"""Numbers for reading: four significant digits, a proper minus, no `1e-05`."""

import math
import re

from vaultlab.result import Metric, Value

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_TYPED = re.compile(r"(?<![\w.])-?(?:\d+\.\d*|\.?\d+)(?:e[+-]?\d+)?(?![\w.]\d)")


def show(value: float) -> str:
    """A number, to four significant digits; a count in full.

    >>> show(0.39104), show(-2), show(0.0000123), show(16.0)
    ('0.391', '−2', '1.23 × 10⁻⁵', '16')
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == int(value) and abs(value) < 1e9:
        return str(int(value)).replace("-", "−")
    short = f"{value:.3e}"
    mantissa, _, exponent = short.partition("e")
    if not -5 < int(exponent) < 7:
        digits = mantissa.rstrip("0").rstrip(".")
        return f"{digits} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}".replace("-", "−")
    fixed = f"{float(short):.{max(0, 3 - int(exponent))}f}"
    return (fixed.rstrip("0").rstrip(".") if "." in fixed else fixed).replace("-", "−")


def span(low: float, high: float) -> str:
    """Both ends of an interval, or the one number where they read the same."""
    return show(low) if show(low) == show(high) else f"{show(low)} to {show(high)}"


def value(of: Value) -> str:
    """A number, or a long vector as its least and largest with their count.

    >>> value((0.391, 0.4, 0.407))
    '0.391 to 0.407 (3 values)'
    """
    if not isinstance(of, tuple):
        return show(of)
    finite = [number for number in of if math.isfinite(number)]
    if not finite:
        return f"no number ({len(of)} values)"
    shown = f"{span(min(finite), max(finite))} ({len(of)} values"
    return shown + (f", {len(of) - len(finite)} not finite)" if len(finite) < len(of) else ")")


def retyped(text: str) -> str:
    """The numbers within a sentence, shown as all others are."""
    return _TYPED.sub(lambda found: show(float(found[0])), text)


def headline(metric: Metric) -> str | None:
    """A headline metric as a property's value, a plain decimal; None for vectors and what is not finite."""
    if isinstance(metric.value, tuple) or not math.isfinite(metric.value):
        return None
    rounded = float(f"{metric.value:.4g}")
    if rounded == int(rounded):
        return str(int(rounded))
    return f"{rounded:.12f}".rstrip("0") if 1e-6 <= abs(rounded) < 1e12 else f"{rounded:.3e}"
