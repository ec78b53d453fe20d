"""Read what an auditor keeps: keys, checkpoints, proofs; short files, each refused by its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from appliance.cli.refusals import WRONG_USAGE, leave
from audit.checkpoint import LogVerifier, open_checkpoint
from audit.cosignature import CosignatureVerifier
from audit.errors import KeyRefused, ProofRefused
from audit.verification.witnessed import Quorum

MAX_EVIDENCE_BYTES = 2**16


def read_vkey(path: Path) -> LogVerifier:
    """Read a log's public key in vkey form."""
    if not path.is_file():
        leave(f"there is no public key at {path}; name one by --vkey", 2)
    try:
        return LogVerifier.from_vkey(read_short(path).decode().strip())
    except UnicodeDecodeError as error:
        raise KeyRefused(f"{path}: a verifier key is text") from error
    except KeyRefused as error:
        raise KeyRefused(f"{path}: {error.what}", hint=error.hint) from error


def read_witness(path: Path) -> CosignatureVerifier:
    """Read a witness's public key in vkey form."""
    try:
        return CosignatureVerifier.from_vkey(read_short(path).decode().strip())
    except UnicodeDecodeError as error:
        raise KeyRefused(f"{path}: a witness's key is text") from error
    except KeyRefused as error:
        raise KeyRefused(f"{path}: {error.what}", hint=error.hint) from error


def read_quorum(witnesses: Sequence[Path], num_required: int | None) -> Quorum | None:
    """Read the witnesses of a verdict; all of them must have cosigned where nothing else is said."""
    if not witnesses and num_required is None:
        return None
    keys = tuple(read_witness(path) for path in witnesses)
    return Quorum(keys, len(keys) if num_required is None else num_required)


def read_checkpoint(path: Path, verifiers: Sequence[LogVerifier]) -> str:
    """Read a checkpoint that the auditor kept, and refuse by its name one that is not this log's."""
    try:
        note = read_short(path).decode()
        open_checkpoint(note, verifiers)
    except UnicodeDecodeError as error:
        raise ProofRefused(f"{path}: a checkpoint is text") from error
    except ProofRefused as error:
        raise ProofRefused(f"{path}: {error.what}", hint=error.hint) from error
    return note


def read_short(path: Path, *, max_bytes: int = MAX_EVIDENCE_BYTES) -> bytes:
    """Read a key, a checkpoint or a proof: a file, and a short one; nobody waits for a pipe or a device without end."""
    if not path.is_file():
        leave(f"there is no file at {path}", WRONG_USAGE)
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ProofRefused(f"{path}: longer than any key, checkpoint or proof")
    return content
