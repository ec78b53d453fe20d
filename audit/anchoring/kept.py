"""The newest head that each witness cosigned, kept beside the log: the proof that others saw it.

    FOLDER/<witness>.checkpoint   the log's note with that witness's cosignature and all others on the same head

Promise: a file is replaced whole and flushed; a witness's file never goes back to a smaller head.  Every file is a
C2SP checkpoint that stands for itself; what is found here is verified again by whoever relies on it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from audit.anchoring.head import CHECKPOINT_SUFFIX, SignedHead, file_name_of
from audit.checkpoint import Checkpoint, split_note
from audit.cosignature import Cosignature, CosignatureVerifier, add_lines, cosignatures_of
from audit.errors import AnchorAhead, AnchorFailed, ProofRefused

_FILE_MODE = 0o600


class KeptNotes:
    """Owner of one folder; safe to use from several threads of one process."""

    def __init__(self, folder: Path, witnesses: Sequence[CosignatureVerifier]) -> None:
        self._folder = folder
        self._witnesses = tuple(witnesses)
        self._lock = Lock()

    def newest(self, witness: CosignatureVerifier) -> SignedHead | None:
        """Return the newest head that this witness cosigned; None when it never did.

        Raises:
            AnchorFailed: what lies there is not what was kept.
        """
        path = self._path(witness)
        try:
            note = path.read_bytes().decode()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise AnchorFailed(f"{path} cannot be read: {error}", hint=_RESTORE) from error
        try:
            checkpoint = Checkpoint.from_text(split_note(note)[0])
            if not cosignatures_of(note, [witness]):
                raise AnchorFailed(f"{path} is not cosigned by {witness.name}", hint=_RESTORE)
        except ProofRefused as error:
            raise AnchorFailed(f"{path}: {error.what}", hint=_RESTORE) from error
        return SignedHead(checkpoint, note)

    def keep(self, head: SignedHead, cosignature: Cosignature) -> str:
        """Keep a cosigned head, together with what other witnesses said of the same one; return the note."""
        with self._lock:
            before = self.newest(cosignature.verifier)
            if before is not None and before.checkpoint.size > head.checkpoint.size:
                raise AnchorAhead(
                    f"{cosignature.verifier.name} cosigned {before.checkpoint.size} entries before, "
                    f"this head has {head.checkpoint.size}"
                )
            note = head.note
            fellows = []
            for witness in self._witnesses:
                try:
                    found = self.newest(witness)
                except AnchorFailed:
                    continue  # that witness's own sink says so, and it alone stops
                if found is None or found.checkpoint != head.checkpoint or witness == cosignature.verifier:
                    continue
                fellows.append(witness)
                note = add_lines(note, cosignatures_of(found.note, self._witnesses))
            note = add_lines(note, [cosignature])
            for witness in (cosignature.verifier, *fellows):
                self._replace(self._path(witness), note)
        return note

    def _path(self, witness: CosignatureVerifier) -> Path:
        return self._folder / f"{file_name_of(witness.name)}{CHECKPOINT_SUFFIX}"

    def _replace(self, path: Path, note: str) -> None:
        try:
            replace_file(path, note.encode(), _FILE_MODE)
        except OSError as error:
            raise AnchorFailed(f"{path} cannot be written: {error.strerror}", hint="check space and disk") from error


_RESTORE = "keep the file for the auditor and move it away; the next cosigned head takes its place"


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Put a flushed file in the place of the one before, and flush its name."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)  # of a writing that was cut short
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
