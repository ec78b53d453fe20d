"""What computed an answer beside the model itself: told from the log, so that a replay compares record with record.

Pure.  Law: whatever of this differs between then and now may explain another answer, and is named in the verdict.
"""

from __future__ import annotations

from collections.abc import Mapping

from audit.event import JsonValue

CIRCUMSTANCES = (
    "dtype",
    "engine_build",
    "max_num_batched_tokens",
    "num_threads",
    "page_size",
    "processor",
    "text_build",
    "torch",
)
"""Facts of `model:loaded`: arithmetic, the order of sums, and what renders and tokenizes."""


def differing(then: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """Name what differs between two `model:loaded` records; what one of them does not say counts as different."""
    return tuple(name for name in CIRCUMSTANCES if then.get(name) is None or then.get(name) != now.get(name))
