"""Whether the appliance admits requests, and if not, why: the one answer for `/readyz` and for every 503.

A reason comes from its owner (the log, the engine, the stop order) and stays until that owner takes it back.  The
appliance admits exactly when there is no reason not to.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One reason not to admit."""

    code: str
    """Stable: `stopping`, `log_unavailable`, `engine_unavailable`."""
    remedy: str
    """What the operator does about it."""


class AdmissionDoor:
    """Open or shut; owned by the event loop."""

    def __init__(self) -> None:
        self._obstacles: dict[str, Obstacle] = {}

    def shut(self, obstacle: Obstacle) -> None:
        """Admit nothing from now on; a second obstacle of the same code replaces the first."""
        self._obstacles[obstacle.code] = obstacle

    def clear(self, code: str) -> None:
        """Take one reason back."""
        self._obstacles.pop(code, None)

    @property
    def obstacles(self) -> tuple[Obstacle, ...]:
        """Every reason that stands, oldest first."""
        return tuple(self._obstacles.values())

    def check(self) -> None:
        """Raise `Unavailable` while any obstacle stands."""
        for obstacle in self._obstacles.values():
            raise Unavailable(
                f"the appliance admits no requests now ({obstacle.code}): {obstacle.remedy}", code=obstacle.code
            )
