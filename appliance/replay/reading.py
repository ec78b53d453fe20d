"""What the log says of a request that is to run again, read in one go beside the event loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.audit_trail import Kind
from appliance.replay.circumstances import differing
from appliance.replay.recorded import (
    RecordedEnd,
    RecordedRequest,
    RecordIncomplete,
    admitted_index,
    read_end,
    read_request,
)
from audit.errors import EntryPruned
from audit.event import JsonValue
from audit.reader import AuditReader, EntryFilter


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request, its end, and what computes otherwise today."""

    request: RecordedRequest
    end: RecordedEnd | None
    """None while it runs."""
    differences: tuple[str, ...]


def read_recorded(reader: AuditReader, index: int, loaded_index: int) -> Recorded:
    """Read an admission and its end; `index` may be of either.

    Args:
        reader: of the log.
        index: of the entry that was asked for.
        loaded_index: where this run's `model:loaded` stands.

    Raises:
        NotARequest: the entry is neither.
        NothingCommitted: policy asked for no commitments.
        RecordIncomplete: a fact is missing.
        EntryNotFound: there is no such entry.
    """
    request = read_request(reader.entry(admitted_index(reader.entry(index))))
    end = read_end(reader.entries(EntryFilter(subject=request.request_id)).entries, request)
    then = _loaded(reader, request.admitted.model_loaded_index)
    return Recorded(request, end, differing(then, _loaded(reader, loaded_index)))


def _loaded(reader: AuditReader, index: int) -> Mapping[str, JsonValue]:
    """Give the facts of a `model:loaded`; none where it was pruned, which is to say that all may differ."""
    try:
        event = reader.entry(index).leaf.event
    except EntryPruned:
        return {}
    if event.kind != Kind.MODEL_LOADED:
        raise RecordIncomplete(f"entry {index} does not say what computed the answer")
    return event.facts
