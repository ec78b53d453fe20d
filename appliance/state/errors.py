"""What can be wrong with the state folder: all of it the operator's to mend.

StateError               base; `path` is the file or folder at fault, `hint` the remedy
├── StateMissing         a part of it is not there
├── StateExposed         mode, owner or kind lets others in
├── StateCorrupt         its content is not what was written or signed
├── StateInUse           another process works on it
└── StateUnusable        the file system refuses
"""

from __future__ import annotations

from pathlib import Path


class StateError(Exception):
    """The state cannot be used as it lies there."""

    def __init__(self, path: Path, reason: str, *, hint: str) -> None:
        super().__init__(f"{path}: {reason} ({hint})")
        self.path = path
        self.reason = reason
        self.hint = hint
        """What the operator does about it."""


class StateMissing(StateError):
    """A part is not there."""


class StateExposed(StateError):
    """Others of this machine may read or change it."""


class StateCorrupt(StateError):
    """Its content is not what was written or signed."""


class StateInUse(StateError):
    """Another process holds it."""


class StateUnusable(StateError):
    """The file system refuses."""
