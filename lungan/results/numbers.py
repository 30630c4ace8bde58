"""Numbers as people read them."""

from __future__ import annotations

import math
import re

from lungan.results.statistics import Interval
from lungan.runs.folder import Scalar

NOTHING = "-"


def number(value: float, digits: int = 4) -> str:
    """``digits`` significant digits, without an exponent where that stays readable."""
    if not math.isfinite(value):
        return str(value)
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{_decimals(value, digits)}f}"


def interval(value: Interval) -> str:
    """``12.34 ± 0.56``, as many decimals as the half-width has in two digits; ``3.1 (1.2 to 8.0)``
    where the interval is not even, as of a geometric mean or at the end of what is possible."""
    if not value.low < value.high:
        return number(value.center)
    half_width = (value.high - value.low) / 2
    if not math.isclose(value.low + half_width, value.center, rel_tol=1e-9, abs_tol=1e-12):
        return f"{number(value.center, 3)} ({span(value.low, value.high)})"
    if not 1e-4 <= half_width < 1e6 or abs(value.center) >= 1e6:
        return f"{number(value.center)} ± {number(half_width, 2)}"
    decimals = _decimals(half_width, 2)
    return f"{value.center:.{decimals}f} ± {half_width:.{decimals}f}"


def span(low: float, high: float, digits: int = 3) -> str:
    """``1.20 to 3.40``, both with the decimals that the larger of the two needs."""
    if any(value != 0 and not 1e-4 <= abs(value) < 1e6 for value in (low, high)):
        return f"{number(low, digits)} to {number(high, digits)}"
    decimals = _decimals(max(abs(low), abs(high)), digits)
    return f"{low:.{decimals}f} to {high:.{decimals}f}"


def p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_relation(value: float) -> str:
    """``= 0.012`` or ``< 0.001``, to follow "p"."""
    return p_value(value) if value < 0.001 else f"= {p_value(value)}"


def scalar(value: Scalar) -> str:
    """A table's cell: empty for what is unknown."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def seconds(value: float) -> str:
    """``47 s``, ``12 min``, ``3 h 20 min``."""
    if value < 120:
        return f"{value:.0f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def moment(text: str) -> str:
    """``2026-01-02 03:04 UTC`` for a time as manifests have it."""
    return re.sub(r"T(\d\d:\d\d):\d\d\+00:00$", r" \1 UTC", text)


def _decimals(value: float, digits: int) -> int:
    if value == 0:
        return digits - 1
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))
