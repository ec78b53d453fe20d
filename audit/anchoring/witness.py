"""The other side: cosign another log's head if it extends the last one that was cosigned (C2SP tlog-witness).

State: one file per log, the note that was cosigned last, with our cosignature under it; that is what makes it ours, so
a file that was altered or belongs to another key is refused and never taken for "nothing cosigned yet".

Promise: of two heads that do not extend one another only one is ever cosigned; the new head is flushed before its
cosignature is told to anybody; check and change happen under one lock, across processes too; no time is given that is
earlier than the last one.  A head that the log's own key signed and that does not extend the last one is kept as
evidence.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from pathlib import Path

from audit.anchoring.head import CHECKPOINT_SUFFIX, SignedHead, file_name_of
from audit.anchoring.kept import replace_file
from audit.anchoring.submission import Submission
from audit.checkpoint import Checkpoint, LogVerifier, open_checkpoint, split_note
from audit.cosignature import Cosignature, Cosigner, add_lines, cosignatures_of
from audit.errors import AuditError, ProofRefused
from audit.merkle import EMPTY_ROOT, verify_consistency

_FILE_MODE = 0o600
_FOLDER_MODE = 0o700
_MAX_EVIDENCE_PER_LOG = 64
EVIDENCE = "evidence"


class RefusalKind(Enum):
    """Why nothing was cosigned."""

    MALFORMED = "malformed"
    UNKNOWN_LOG = "unknown_log"
    UNSIGNED = "unsigned"
    """By no key that the operator gave for this log."""
    OTHER_SIZE = "other_size"
    """The log believes us at another size than we are."""
    OTHER_ROOT = "other_root"
    """Another head of the size that was cosigned last."""
    INCONSISTENT = "inconsistent"
    """The proof does not lead from the last head to this one."""
    NOT_NOW = "not_now"
    """Our own state or clock cannot be relied on."""


class WitnessRefused(AuditError):
    """Nothing was cosigned and nothing changed."""

    def __init__(
        self, kind: RefusalKind, what: str, *, hint: str = "", size: int = 0, head: Checkpoint | None = None
    ) -> None:
        super().__init__(what, hint=hint)
        self.kind = kind
        self.what = what
        self.size = size
        """Of the head that was cosigned last."""
        self.head = head
        """What the log signed, where its own key did."""
        self.new_evidence = ""
        """Name of the file that now keeps it; empty when it was kept before, or is no evidence of anything."""


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A head that is recorded, and our word on it."""

    checkpoint: Checkpoint
    cosignature: Cosignature
    note: str
    """The log's own note with the cosignature under it."""
    is_first: bool
    """Nothing of this log had been cosigned before."""


class Witness:
    """One witness key and its state folder; safe to use from several threads and processes."""

    def __init__(
        self,
        folder: Path,
        cosigner: Cosigner,
        logs: Sequence[LogVerifier],
        *,
        now_s: Callable[[], int],
        enrolled: Collection[str] = (),
    ) -> None:
        """Take what it works with; nothing is opened yet.

        Args:
            folder: its state.
            cosigner: its key.
            logs: the public keys of the logs that it cosigns; several of one name while that log's key rotates.
            now_s: seconds since 1970.
            enrolled: origins of which something was cosigned for certain, so that a missing file is a loss.
        """
        self._folder = folder
        self._cosigner = cosigner
        self._logs = tuple(logs)
        self._now_s = now_s
        self._enrolled = frozenset(enrolled)

    def add_checkpoint(self, text: str) -> Cosigned:
        """Take the body of a request and cosign its head.

        1. parse; 2. the origin is known; 3. its key signed the head; 4. the old size is not beyond the head; 5. the old
        size is where we are; 6. the proof leads from there to the head; 7. it is cosigned; 8. head
        and cosignature are flushed together, and only then is the cosignature told.

        Raises:
            WitnessRefused: nothing was cosigned.
            OSError: the state cannot be read or written; nothing was cosigned.
        """
        submission, origin = _parsed(text)
        verifiers = [log for log in self._logs if log.name == origin]
        if not verifiers:
            raise WitnessRefused(RefusalKind.UNKNOWN_LOG, f"the log {origin!r} is not one of those cosigned here")
        try:
            head = open_checkpoint(submission.note, verifiers)
        except ProofRefused as error:
            raise WitnessRefused(RefusalKind.UNSIGNED, error.what) from error
        if submission.old_size > head.size:
            raise WitnessRefused(RefusalKind.MALFORMED, "the old size is beyond the checkpoint")
        with self._locked():
            try:
                return self._cosign(submission, head)
            except WitnessRefused as refusal:
                if refusal.kind in (RefusalKind.INCONSISTENT, RefusalKind.OTHER_ROOT):
                    refusal.new_evidence = self._keep_evidence(text, head)
                raise

    def sizes(self) -> dict[str, int]:
        """Return the size that was cosigned last, by origin, of every log that something was cosigned of."""
        found = {}
        for origin in dict.fromkeys(log.name for log in self._logs):
            last = self._last(origin)
            if last is not None:
                found[origin] = last[0].checkpoint.size
        return found

    def _cosign(self, submission: Submission, head: Checkpoint) -> Cosigned:
        last = self._last(head.origin)
        size, root, last_at_s = (0, EMPTY_ROOT, 0) if last is None else _where(*last)
        if submission.old_size != size:
            what = f"the last head cosigned here has {size} entries"
            raise WitnessRefused(RefusalKind.OTHER_SIZE, what, size=size, head=head)
        if size == head.size and last is not None and root != head.root:
            what = f"another head of {size} entries was cosigned here"
            raise WitnessRefused(RefusalKind.OTHER_ROOT, what, size=size, head=head)
        try:
            verify_consistency(size, root, head.size, head.root, submission.proof)
        except ProofRefused as error:
            raise WitnessRefused(RefusalKind.INCONSISTENT, error.what, size=size, head=head) from error
        at_s = self._now_s()
        if at_s < last_at_s:
            raise WitnessRefused(
                RefusalKind.NOT_NOW,
                f"the clock shows a time before that of the last cosignature ({last_at_s})",
                hint="set the witness's clock right",
                size=size,
            )
        cosignature = self._cosigner.cosign(head.text(), at_s)
        note = add_lines(submission.note, [cosignature])
        self._folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        replace_file(self._path(head.origin), note.encode(), _FILE_MODE)
        return Cosigned(head, cosignature, note, is_first=last is None)

    def _last(self, origin: str) -> tuple[SignedHead, Cosignature] | None:
        path = self._path(origin)
        try:
            note = path.read_bytes().decode()
        except FileNotFoundError:
            if origin in self._enrolled:
                raise _unsound(path, "is missing, though heads of this log were cosigned") from None
            return None
        except UnicodeDecodeError as error:
            raise _unsound(path, "is no text") from error
        try:
            checkpoint = Checkpoint.from_text(split_note(note)[0])
            ours = cosignatures_of(note, [self._cosigner.verifier])
        except ProofRefused as error:
            raise _unsound(path, f"cannot be relied on: {error.what}") from error
        if not ours or checkpoint.origin != origin:
            raise _unsound(path, "was not cosigned by this witness's key")
        return SignedHead(checkpoint, note), ours[0]

    def _keep_evidence(self, text: str, head: Checkpoint) -> str:
        folder = self._folder / EVIDENCE / file_name_of(head.origin)
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        path = folder / f"{head.size}-{sha256(head.root).hexdigest()[:16]}.submission"
        if path.exists() or sum(1 for _ in folder.iterdir()) >= _MAX_EVIDENCE_PER_LOG:
            return ""
        replace_file(path, text.encode(), _FILE_MODE)
        return path.relative_to(self._folder).as_posix()

    def _path(self, origin: str) -> Path:
        return self._folder / f"{file_name_of(origin)}{CHECKPOINT_SUFFIX}"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        descriptor = os.open(self._folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _parsed(text: str) -> tuple[Submission, str]:
    try:
        submission = Submission.from_text(text)
        return submission, Checkpoint.from_text(split_note(submission.note)[0]).origin
    except ProofRefused as error:
        raise WitnessRefused(RefusalKind.MALFORMED, error.what) from error


def _where(head: SignedHead, ours: Cosignature) -> tuple[int, bytes, int]:
    return head.checkpoint.size, head.checkpoint.root, ours.at_s


def _unsound(path: Path, what: str) -> WitnessRefused:
    return WitnessRefused(
        RefusalKind.NOT_NOW,
        f"the witness's state {path.name} {what}",
        hint="restore it from a backup that is as new; a witness that lost its state is retired, with its key",
    )
