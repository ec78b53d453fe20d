"""Whether the appliance admits requests, and if not, why: the one answer for `/readyz` and for every 503.

A reason comes from its owner (the log, the engine, the stop order) and stays until that owner takes it back.  The
appliance admits exactly when no reason stands that shuts the door; one that stops some requests only is shown all the
same, so that nobody calls the appliance ready.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One reason not to admit."""

    code: str
    """Stable: `stopping`, `log_unavailable`, `log_away`, `engine_unavailable`, `subject_keys_unavailable`."""
    remedy: str
    """What the operator does about it."""
    shuts: bool = True
    """False: it stops some requests only, and each of them finds out for itself."""


class AdmissionDoor:
    """Open or shut; owned by the event loop."""

    def __init__(self) -> None:
        self._obstacles: dict[str, Obstacle] = {}

    def shut(self, obstacle: Obstacle) -> None:
        """Admit nothing from now on; a second obstacle of the same code replaces the first."""
        assert obstacle.shuts, f"{obstacle.code} stops some requests only"
        self._obstacles[obstacle.code] = obstacle

    def show(self, obstacle: Obstacle) -> None:
        """Say that some requests cannot be served from now on."""
        assert not obstacle.shuts, f"{obstacle.code} stops every request"
        self._obstacles[obstacle.code] = obstacle

    def stands(self, code: str) -> bool:
        """Whether this reason stands."""
        return code in self._obstacles

    def clear(self, code: str) -> None:
        """Take one reason back."""
        self._obstacles.pop(code, None)

    @property
    def obstacles(self) -> tuple[Obstacle, ...]:
        """Every reason that stands, oldest first."""
        return tuple(self._obstacles.values())

    def check(self) -> None:
        """Raise `Unavailable` while an obstacle stands that shuts the door."""
        for obstacle in self._obstacles.values():
            if obstacle.shuts:
                raise Unavailable(
                    f"the appliance admits no requests now ({obstacle.code}): {obstacle.remedy}", code=obstacle.code
                )
