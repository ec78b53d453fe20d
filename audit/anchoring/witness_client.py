"""A head to a witness, and its cosignature back: C2SP tlog-witness, seen from the log.

Promise: a cosignature counts only under the key that the operator configured for this witness; what a witness says is
never believed beyond that - a size that it names only chooses the proof it is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from audit.anchoring.head import SignedHead
from audit.anchoring.http_post import Answer, HttpAddress, post
from audit.anchoring.kept import KeptNotes
from audit.anchoring.sink import Anchored
from audit.anchoring.submission import SIZE_TYPE, Submission, parse_size_answer
from audit.cosignature import Cosignature, CosignatureVerifier, cosignatures_of
from audit.errors import AnchorAhead, AnchorFailed, ProofRefused

ADD_CHECKPOINT = "/add-checkpoint"
_OK, _CONFLICT, _INCONSISTENT = 200, 409, 422
_MAX_ANSWER_BYTES = 2**16
_MAX_TRIES = 2
"""The first may only learn where the witness stands."""
_REMEDIES = {
    400: "does it speak C2SP tlog-witness, and does this log's origin suit it?",
    401: "it wants a key: name the file that holds one by key_file",
    403: "the key may not be used for this, or the witness was given another public key of this log",
    404: "give the witness this log's public key; or the address is not a witness's",
}
_FORKED = "two histories were signed by one log: keep both for the auditor"


@dataclass(frozen=True, slots=True)
class WitnessAddress:
    """One witness as the operator configured it."""

    address: HttpAddress
    verifier: CosignatureVerifier
    key_file: Path | None = None
    """Holds a bearer key, for a witness that wants one; read at each call, so that it can be replaced."""
    ca_file: Path | None = None
    """PEM certificates to trust instead of the machine's."""


class WitnessSink:
    """One witness."""

    def __init__(self, witness: WitnessAddress, prove: Callable[[int, int], Sequence[bytes]], kept: KeptNotes) -> None:
        """Take what it talks with.

        Args:
            witness: whom to ask.
            prove: gives the consistency proof from a size to a signed size of this log.
            kept: where its cosigned heads are kept.
        """
        self._witness = witness
        self._prove = prove
        self._kept = kept

    @property
    def name(self) -> str:
        """By the witness's own name."""
        return f"witness:{self._witness.verifier.name}"

    def anchor(self, head: SignedHead, deadline_at: float) -> Anchored:
        """Have the head cosigned and keep the cosigned note."""
        kept = self._kept.newest(self._witness.verifier)
        old_size = 0 if kept is None else kept.checkpoint.size
        if old_size > head.checkpoint.size:
            raise AnchorAhead(f"the witness cosigned {old_size} entries, this log has {head.checkpoint.size}")
        for _ in range(_MAX_TRIES):
            proof = tuple(self._prove(old_size, head.checkpoint.size))
            answer = self._send(Submission(old_size, proof, head.note), deadline_at)
            if answer.status == _OK:
                cosignature = self._verified(head, answer.body)
                self._kept.keep(head, cosignature)
                return Anchored(head.checkpoint.size, (cosignature,))
            old_size = self._size_of_witness(answer, old_size, head.checkpoint.size)
        raise AnchorFailed("the witness's size changed twice while it was asked", hint="does another log use our name?")

    def _send(self, submission: Submission, deadline_at: float) -> Answer:
        headers = {"content-type": "text/plain; charset=utf-8", **self._authorization()}
        return post(
            self._witness.address,
            ADD_CHECKPOINT,
            submission.to_text().encode(),
            headers,
            deadline_at=deadline_at,
            max_answer_bytes=_MAX_ANSWER_BYTES,
            ca_file=self._witness.ca_file,
        )

    def _authorization(self) -> dict[str, str]:
        path = self._witness.key_file
        if path is None:
            return {}
        try:
            mode = path.stat().st_mode
            key = path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise AnchorFailed(f"the key in {path} cannot be read: {error}") from error
        if mode & 0o077:
            raise AnchorFailed(f"the key file {path} is open to others", hint=f"chmod 600 {path}")
        if not key or not key.isprintable() or " " in key:
            raise AnchorFailed(f"there is no key in {path}")
        return {"authorization": f"Bearer {key}"}

    def _verified(self, head: SignedHead, lines: bytes) -> Cosignature:
        """Read the answer as the specification says: behind the note that was sent, with the keys that we know."""
        text = head.checkpoint.text()
        try:
            found = cosignatures_of(f"{text}\n{lines.decode()}", [self._witness.verifier])
        except (ProofRefused, UnicodeDecodeError) as error:
            raise AnchorFailed(f"the witness's answer is no cosignature of this head: {error}") from error
        if not found:
            raise AnchorFailed(
                "the witness answered with no cosignature by the key that is configured for it",
                hint=f"expected {self._witness.verifier.vkey}",
            )
        return found[0]

    def _size_of_witness(self, answer: Answer, old_size: int, size: int) -> int:
        """Learn from a refusal where the witness stands, or raise what it means."""
        if answer.status == _INCONSISTENT:
            raise AnchorAhead(
                f"the witness holds a head of {old_size} entries that this log does not extend", hint=_FORKED
            )
        if answer.status != _CONFLICT:
            raise AnchorFailed(f"the witness answered {answer.status}", hint=_REMEDIES.get(answer.status, ""))
        if old_size == size and answer.media_type != SIZE_TYPE:
            raise AnchorAhead(f"the witness holds another head of {size} entries", hint=_FORKED)
        try:
            at_size = parse_size_answer(answer.body)
        except ProofRefused as error:
            raise AnchorFailed(f"the witness answered 409: {error.what}") from error
        if at_size == old_size == size:
            raise AnchorAhead(f"the witness holds another head of {size} entries", hint=_FORKED)
        if at_size > size:
            raise AnchorAhead(f"the witness cosigned {at_size} entries, this log has {size}: it was rolled back")
        return at_size
