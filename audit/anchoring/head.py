"""A signed head on its way out, and the one file name that a log has everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from audit.checkpoint import Checkpoint
from audit.errors import AnchorFailed

CHECKPOINT_SUFFIX = ".checkpoint"
_MAX_NAME_BYTES = 200


@dataclass(frozen=True, slots=True)
class SignedHead:
    """What the log commits to, and the note that says so."""

    checkpoint: Checkpoint
    note: str


def file_name_of(origin: str) -> str:
    """Give a log's origin as a name for one file or folder: letters, digits, `-`, `_`, else `%XX`; never a dot first.

    Raises:
        AnchorFailed: no file system takes a name that long.
    """
    name = quote(origin, safe="").replace("~", "%7E")
    name = f"%2E{name[1:]}" if name.startswith(".") else name
    if len(name) > _MAX_NAME_BYTES:
        raise AnchorFailed(f"the origin {origin[:40]!r}... is too long for a file name")
    return name
