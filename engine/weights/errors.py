"""Why a model folder was not loaded; each error names the file and says what the operator does about it.

LoadError
├── FileRefused          the bytes never became input: not named, not a plain file, unreadable, too large
│   └── DigestMismatch   the bytes are not the ones that were signed
├── FileMalformed        the signed bytes are not the format they claim to be
├── ModelUnsupported     a well-formed description asks for mathematics that this engine does not have
└── ModelDoesNotFit      the model is sound but the given bounds cannot hold it
"""

from __future__ import annotations


class LoadError(Exception):
    """Base of everything that stops a load; nothing of a refused model is ever used."""

    def __init__(self, file: str, reason: str, hint: str) -> None:
        super().__init__(f"{file}: {reason} ({hint})")
        self.file = file
        """Name inside the model folder; empty when no single file is at fault."""
        self.reason = reason
        self.hint = hint
        """What the operator does about it."""


class FileRefused(LoadError):
    """A file was not read, or its bytes were thrown away unparsed."""


class DigestMismatch(FileRefused):
    """A file's bytes differ from the digest that the signature covers."""

    def __init__(self, file: str, expected: str, actual: str) -> None:
        super().__init__(
            file,
            f"its SHA-256 is {actual}, the signed manifest says {expected}",
            "the file was changed or damaged after signing: install the model again from its release",
        )
        self.expected = expected
        self.actual = actual


class FileMalformed(LoadError):
    """Verified bytes that do not parse, or that lie about themselves."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(file, reason, "the file was signed in this state: ask whoever made the model for a sound one")


class ModelUnsupported(LoadError):
    """The description names something outside the closed list of what is implemented."""

    def __init__(self, file: str, reason: str, hint: str = "serve a model of a supported architecture") -> None:
        super().__init__(file, reason, hint)


class ModelDoesNotFit(LoadError):
    """A bound of the configuration is too small for this model, with the number that would do."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__("", reason, hint)
