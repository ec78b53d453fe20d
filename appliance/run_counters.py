"""What the engine counted in this run, as facts of the records that say how it stood: a death, the stop, a report.

The engine's own tally, not made from the log: `appliance.reconciliation` holds the two against one another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from audit.event import JsonValue
from engine.request import SequenceUsage

if TYPE_CHECKING:
    from engine.health import EngineStats


class RunCounters:
    """One per run; empty until an engine is followed."""

    def __init__(self) -> None:
        self._stats: Callable[[], EngineStats] | None = None

    def follow(self, stats: Callable[[], EngineStats]) -> None:
        """Read this engine's counts from now on."""
        self._stats = stats

    def facts(self) -> dict[str, JsonValue]:
        """Give the fact `engine` of a record; nothing where no engine was there to count."""
        if self._stats is None:
            return {}
        stats = self._stats()
        total = SequenceUsage(stats.num_prompt_tokens, stats.num_cached_tokens, stats.num_output_tokens)
        finished: dict[str, JsonValue] = dict(stats.num_finished)
        return {
            "engine": {
                **usage_facts(total),
                "late": usage_facts(stats.late),
                "finished": finished,
                "restarts": stats.restarts,
            }
        }


def usage_facts(usage: SequenceUsage) -> dict[str, JsonValue]:
    """Give token counts as facts."""
    return {
        "cached_tokens": usage.num_cached_tokens,
        "output_tokens": usage.num_output_tokens,
        "prompt_tokens": usage.num_prompt_tokens,
    }
