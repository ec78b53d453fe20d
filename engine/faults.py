"""Why an engine process ends itself, in words that name code and never data."""

from __future__ import annotations

import traceback
from pathlib import Path

from engine.wire import Fault, MalformedFrame


class UnexpectedMessage(Exception):
    """A well-formed message at a time when our service does not send it."""


class LoadBroken(Exception):
    """The loader raised what it does not promise to raise."""


class IntegrityBroken(Exception):
    """Pages are lost or owned twice."""


FAULT_CODES: dict[type[Exception], str] = {
    MalformedFrame: "malformed_frame",
    UnexpectedMessage: "unexpected_message",
    LoadBroken: "load_broken",
    IntegrityBroken: "integrity_failed",
}


def fault_of(error: Exception) -> Fault:
    """Name class and place of an exception.  Its text stays here: it may quote what a user wrote."""
    cause = error.__cause__ or error
    frames = traceback.extract_tb(cause.__traceback__)
    where = f"{'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno} {frames[-1].name}" if frames else ""
    return Fault(FAULT_CODES.get(type(error), "step_failed"), type(cause).__name__, where)
