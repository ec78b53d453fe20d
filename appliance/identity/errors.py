"""What can be wrong with the key database: all of it the operator's to mend.

IdentityError               base; `hint` says what to do
└── KeyStoreError           no key can be checked: the API answers 503, nobody is let in
    ├── KeyStoreMissing     there is no file at the path; one is never created by reading
    ├── KeyStoreExposed     other accounts of the machine may read or write it
    ├── KeyStoreCorrupt     the file is not, or no longer, a key database of this version
    └── KeyStoreUnusable    the file system or a lock refused

A credential that is refused is no error: see `authenticate.AuthFailure`.
"""

from __future__ import annotations

from pathlib import Path


class IdentityError(Exception):
    """Base of this package's errors."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(f"{message}: {hint}")
        self.message = message
        self.hint = hint


class KeyStoreError(IdentityError):
    """The key database at `path` cannot be used."""

    def __init__(self, message: str, *, path: Path, hint: str) -> None:
        super().__init__(f"key database {path}: {message}", hint=hint)
        self.path = path


class KeyStoreMissing(KeyStoreError):
    """No file."""


class KeyStoreExposed(KeyStoreError):
    """Mode or owner let others in."""


class KeyStoreCorrupt(KeyStoreError):
    """Content that we did not write."""


class KeyStoreUnusable(KeyStoreError):
    """The machine refuses."""
