"""Every way this package says no, split by who must act.

    AuditError
    ├── AuditRefused         the caller: this event, filter or argument is not acceptable
    │   └── FilterRefused    the same, and where in the filter's text
    ├── AuditQueueFull       the caller: later, with less
    ├── EntryNotFound        the caller: no such index, subject or checkpoint
    │   └── EntryPruned      the caller: it was there, and is gone by a recorded act
    ├── SubjectErased        the caller: the key behind this commitment was destroyed
    ├── AuditInterrupted     the caller: later; the log's database went away and is waited for
    ├── AuditHalted          the operator: the writer stopped for good; restart after reading the reason
    ├── LogMissing           the operator: no log at this path, and none is made silently
    ├── LogExists            the operator: creating would hide an existing log
    ├── WriterLocked         the operator: another writer holds this log
    ├── SettingRefused       the operator: the store did not take a setting that durability rests on
    ├── LogUnusable          the operator: machine or server refuse the log (space, lock, permissions)
    ├── KeyringUnusable      the operator: the same, about the subject keys' file
    ├── AnchorFailed         the operator: a place outside the box did not take a head
    │   └── AnchorAhead      the operator and the auditor: that place knows a newer or another head than this log
    ├── KeyRefused           the operator: a key or key file is malformed, exposed or the wrong one
    ├── AuditCorrupt         the auditor: stored bytes contradict one another or the signed head
    └── ProofRefused         the auditor: a leaf, note, proof or tile is malformed or does not verify

`AuditHalted` is the one fatal kind: everything else fails one call and leaves the log as it was.
"""

from __future__ import annotations

from audit.location import LogLocation

DAMAGE_HINT = "keep the file as it is for the auditor and restore a copy"
"""What to do where the content of a file is in doubt."""


class AuditError(Exception):
    """Root of the tree; carries what to do next."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message if not hint else f"{message} ({hint})")
        self.hint = hint


class AuditRefused(AuditError):
    """The event or argument breaks the log's rules; nothing was recorded."""

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.what = what


class FilterRefused(AuditRefused):
    """A filter that means nothing, or more than is evaluated."""

    def __init__(self, what: str, *, at: int, hint: str = "") -> None:
        super().__init__(f"at character {at + 1}: {what}", hint=hint)
        self.at = at
        """Index of the character at fault."""


class AuditQueueFull(AuditError):
    """As many events wait as may wait; nothing was recorded."""

    def __init__(self, queue_len: int) -> None:
        super().__init__(f"{queue_len} events are waiting to be recorded", hint="slow down and try again")
        self.queue_len = queue_len


class EntryNotFound(AuditError):
    """Asked for something that the log does not hold."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class EntryPruned(EntryNotFound):
    """Asked for something below the floor of pruning."""

    def __init__(self, index: int, minimum_index: int) -> None:
        super().__init__(f"entry {index} was pruned; entries from {minimum_index} on are here")
        self.index = index
        self.minimum_index = minimum_index


class SubjectErased(AuditError):
    """The subject's key was destroyed: its commitments can never be checked again, which was the point."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"subject key {key_id} was destroyed")
        self.key_id = key_id


class AuditInterrupted(AuditError):
    """The log's database went away and is waited for; nothing was recorded, and whoever owes no record may go."""

    def __init__(self) -> None:
        super().__init__("the log's database went away and is waited for", hint="try again later")


class AuditHalted(AuditError):
    """The writer stopped for good; whether the last batch is durable is unknown until the log is reopened."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, hint="nothing is recorded until the process is restarted and the log recovered")
        self.reason = reason


class LogMissing(AuditError):
    """There is no log here; an empty one is never made in its place."""

    def __init__(self, path: LogLocation) -> None:
        super().__init__(f"no log at {path}", hint="create it on purpose, or restore it; an empty log proves nothing")
        self.path = path


class LogExists(AuditError):
    """There is something here already."""

    def __init__(self, path: LogLocation) -> None:
        super().__init__(f"{path} exists", hint="open it, or choose another path")
        self.path = path


class WriterLocked(AuditError):
    """Another writer is at work; two would fork the log."""

    def __init__(self, path: LogLocation) -> None:
        super().__init__(f"another writer holds {path}", hint="stop the other process first")
        self.path = path


class SettingRefused(AuditError):
    """A setting was written and read back as something else."""

    def __init__(self, name: str, wanted: object, found: object, *, hint: str = "") -> None:
        super().__init__(
            f"{name} must be {wanted} but is {found}", hint=hint or "durability rests on it, so the log stays shut"
        )
        self.name = name
        self.wanted = wanted
        self.found = found


class LogUnusable(AuditError):
    """The machine refuses the log's database; its content is not in doubt."""

    def __init__(self, path: LogLocation, what: str, *, hint: str) -> None:
        super().__init__(f"the log {path}: {what}", hint=hint)
        self.path = path
        self.what = what


class KeyringUnusable(AuditError):
    """The machine refuses the subject keys' database; nothing was committed to."""

    def __init__(self, path: LogLocation, what: str, *, hint: str) -> None:
        super().__init__(f"the subject keys {path}: {what}", hint=hint)
        self.path = path
        self.what = what


class AnchorFailed(AuditError):
    """A place outside the box did not take the head; the log itself is as it was."""

    def __init__(self, reason: str, *, hint: str = "") -> None:
        super().__init__(reason, hint=hint)
        self.reason = reason


class AnchorAhead(AnchorFailed):
    """That place holds a newer head of this log, or another one of this size: the log was rolled back or forked."""


class KeyRefused(AuditError):
    """A key or key file cannot be used as it is."""

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.what = what


class AuditCorrupt(AuditError):
    """What is stored contradicts itself, the signed head, or the form in which it was written."""

    def __init__(
        self,
        index: int | None,
        what: str,
        *,
        hint: str = "keep the files as they are and verify the log",
        path: LogLocation | None = None,
    ) -> None:
        file = "the log" if path is None else str(path)
        place = file if index is None else f"entry {index}" if path is None else f"{file}, entry {index}"
        super().__init__(f"{place}: {what}", hint=hint)
        self.path = path
        """The file at fault, where the one who raises knows it."""
        self.index = index
        self.what = what


class ProofRefused(AuditError):
    """Evidence is malformed or does not verify; never a leaked `ValueError`."""

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.what = what
