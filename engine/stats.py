"""The core's gauges after a step: what an operator watches of memory and planning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CoreStats:
    """As of one moment between two steps."""

    num_running: int
    num_waiting: int
    num_pages: int
    num_free_pages: int
    num_cached_pages: int
    """Held by the prefix tree alone; given up when pages run short."""
