"""Every way this package says no, split by who must act.

    TrustError                      carries what to do next
    ├── KeyRefused                  the key holder: a key file is malformed, of a wrong kind, or open to others
    ├── FolderRefused               the import officer: a file of the folder cannot be signed or trusted
    ├── EvidenceRefused             the import officer: a signed document does not prove what it must
    │   ├── DocumentRefused         its bytes are not of the one accepted form
    │   ├── SignatureRefused        no trusted key signed these bytes
    │   ├── ThresholdNotMet         good signatures, but by too few distinct keys
    │   └── Expired                 it was good once
    └── TrustRootRefused            the security officer: this root does not follow from the one that is trusted

Malformed input always ends here, never as a leaked `ValueError`.
"""

from __future__ import annotations


class TrustError(Exception):
    """Root of the tree; carries what to do next."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(f"{message} ({hint})")
        self.message = message
        self.hint = hint


class KeyRefused(TrustError):
    """A key cannot be used as it is."""


class FolderRefused(TrustError):
    """A folder holds something that no manifest may list; `file` is its name inside, empty for the folder itself."""

    def __init__(self, file: str, reason: str, *, hint: str) -> None:
        super().__init__(f"{file!a}: {reason}" if file else reason, hint=hint)
        self.file = file
        self.reason = reason


class EvidenceRefused(TrustError):
    """A signed document proves nothing; `document` names what it was meant to be."""

    def __init__(self, document: str, reason: str, *, hint: str) -> None:
        super().__init__(f"{document}: {reason}", hint=hint)
        self.document = document
        self.reason = reason


class DocumentRefused(EvidenceRefused):
    """The bytes are not of the one accepted form."""


class SignatureRefused(EvidenceRefused):
    """No trusted key signed these bytes."""


class ThresholdNotMet(EvidenceRefused):
    """Too few distinct keys signed."""

    def __init__(self, document: str, *, num_signers: int, threshold: int) -> None:
        super().__init__(
            document,
            f"signed by {num_signers} trusted keys, {threshold} are needed",
            hint="collect the missing signatures over the same document",
        )
        self.num_signers = num_signers
        self.threshold = threshold


class Expired(EvidenceRefused):
    """The document's own end has passed; times are RFC 3339 UTC."""

    def __init__(self, document: str, *, expires_at: str, now: str) -> None:
        super().__init__(
            document, f"expired at {expires_at}, it is {now}", hint="check this machine's clock, or have it signed anew"
        )
        self.expires_at = expires_at
        self.now = now


class TrustRootRefused(TrustError):
    """A trust root is not the pinned one or does not follow from its predecessor; `version` is the one it claims."""

    def __init__(self, reason: str, *, hint: str, version: int = 0) -> None:
        super().__init__(f"trust root {version}: {reason}" if version else f"trust root: {reason}", hint=hint)
        self.reason = reason
        self.version = version
