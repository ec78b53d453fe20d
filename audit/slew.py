"""How far wall and monotonic time may part by themselves: what a time daemon stretches is no clock that was set.

Pure.  The writer's guard and the verifier ask the same function, so what the one let pass the other does not name.
"""

from __future__ import annotations

_SLEW_PER_SECOND = 0.001
"""Twice the fastest rate at which a time daemon may stretch a second without stepping the clock."""


def slew_allowance_us(elapsed_ns: int) -> int:
    """Return the microseconds by which the clocks may part in this much monotonic time, of either sign."""
    return int(abs(elapsed_ns) / 1_000 * _SLEW_PER_SECOND)
