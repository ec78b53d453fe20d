"""A witness and its client: what is cosigned, what never is, and what each of the two says to the other."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from anchored_logs import Tree, WitnessServer, listening, numbered
from audit_log_builder import OTHER_SIGNER, SIGNER
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.anchoring.head import SignedHead
from audit.anchoring.http_post import HttpAddress
from audit.anchoring.kept import KeptNotes
from audit.anchoring.submission import MAX_PROOF_LEN, Submission
from audit.anchoring.witness import EVIDENCE, RefusalKind, Witness, WitnessRefused
from audit.anchoring.witness_client import WitnessAddress, WitnessSink
from audit.checkpoint import LogSigner, open_checkpoint
from audit.cosignature import Cosigner, cosignatures_of
from audit.errors import AnchorAhead, AnchorFailed, ProofRefused

COSIGNER = Cosigner("w.example/one", Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
OTHER_COSIGNER = Cosigner("w.example/two", Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))
TREE = Tree(numbered(40))
FORK = Tree(numbered(40, changed=5))
STATE = "cloister.example%2Flog.checkpoint"
ENOUGH_S = 60.0


class Clock:
    """A witness's clock."""

    def __init__(self) -> None:
        self.at_s = 1_763_964_000

    def __call__(self) -> int:
        """Show the time."""
        return self.at_s


@pytest.fixture
def clock() -> Clock:
    """One that stands."""
    return Clock()


@pytest.fixture
def witness(tmp_path: Path, clock: Clock) -> Witness:
    """A witness of one log."""
    return Witness(tmp_path / "witness", COSIGNER, [SIGNER.verifier], now_s=clock)


def submission(old_size: int, size: int, tree: Tree = TREE) -> str:
    """What a log sends."""
    return Submission(old_size, tuple(tree.prove(old_size, size)), tree.head(size).note).to_text()


def refusal(witness: Witness, text: str) -> WitnessRefused:
    """Be refused."""
    with pytest.raises(WitnessRefused) as caught:
        witness.add_checkpoint(text)
    return caught.value


def test_what_extends_is_cosigned_and_recorded_before_it_is_said(
    witness: Witness, tmp_path: Path, clock: Clock
) -> None:
    """From nothing, on, the same again, and by another process's witness on the same folder."""
    first = witness.add_checkpoint(submission(0, 7))
    assert first.is_first
    assert cosignatures_of(first.note, [COSIGNER.verifier])[0].at_s == clock.at_s
    assert open_checkpoint(first.note, [SIGNER.verifier]).size == 7
    assert (tmp_path / "witness" / STATE).read_text() == first.note
    assert not witness.add_checkpoint(submission(7, 33)).is_first
    assert not witness.add_checkpoint(submission(33, 33)).is_first
    again = Witness(tmp_path / "witness", COSIGNER, [SIGNER.verifier], now_s=clock)
    assert again.sizes() == {SIGNER.name: 33}
    assert again.add_checkpoint(submission(33, 40)).checkpoint.size == 40
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "witness").iterdir()} == {0o600}


def test_every_pair_of_sizes_is_cosigned_by_the_proof_that_fits_and_no_other(tmp_path: Path, clock: Clock) -> None:
    """Small trees, all of them."""
    for old in range(9):
        for new in range(old, 10):
            witness = Witness(tmp_path / f"{old}-{new}", COSIGNER, [SIGNER.verifier], now_s=clock)
            if old:
                witness.add_checkpoint(submission(0, old))
            text = submission(old, new)
            for line in text.split("\n\n")[0].split("\n")[1:]:
                assert refusal(witness, text.replace(line, "A" * 43 + "=")).kind is RefusalKind.INCONSISTENT
            assert witness.add_checkpoint(text).checkpoint.size == new


def test_each_refusal_has_its_kind_and_changes_nothing(witness: Witness, tmp_path: Path) -> None:
    """As the specification lists them, in its order."""
    stranger = Tree(numbered(9), [LogSigner.from_seed("stranger.example", bytes(32))])
    other_key = Tree(numbered(40), [OTHER_SIGNER])
    witness.add_checkpoint(submission(0, 7))
    before = (tmp_path / "witness" / STATE).read_bytes()
    assert refusal(witness, "nonsense").kind is RefusalKind.MALFORMED
    assert refusal(witness, submission(0, 9, stranger)).kind is RefusalKind.UNKNOWN_LOG
    assert refusal(witness, submission(7, 9, other_key)).kind is RefusalKind.UNSIGNED
    beyond = submission(7, 9).replace("old 7", "old 10", 1)
    assert refusal(witness, beyond).kind is RefusalKind.MALFORMED
    behind = refusal(witness, submission(3, 9))
    assert (behind.kind, behind.size) == (RefusalKind.OTHER_SIZE, 7)
    smaller = refusal(witness, submission(3, 5))
    assert (smaller.kind, smaller.size) == (RefusalKind.OTHER_SIZE, 7)
    assert (tmp_path / "witness" / STATE).read_bytes() == before
    assert not (tmp_path / "witness" / EVIDENCE).exists()


def test_a_fork_that_the_log_s_own_key_signed_is_kept_as_evidence_once(witness: Witness, tmp_path: Path) -> None:
    """A longer history that does not extend, and another root of the same size; the request itself is kept."""
    witness.add_checkpoint(submission(0, 7))
    longer = refusal(witness, submission(7, 9, FORK))
    assert longer.kind is RefusalKind.INCONSISTENT
    same = refusal(witness, submission(7, 7, FORK))
    assert same.kind is RefusalKind.OTHER_ROOT
    assert (tmp_path / "witness" / longer.new_evidence).read_text() == submission(7, 9, FORK)
    assert (tmp_path / "witness" / same.new_evidence).read_text() == submission(7, 7, FORK)
    assert refusal(witness, submission(7, 9, FORK)).new_evidence == ""
    assert witness.add_checkpoint(submission(7, 9)).checkpoint.size == 9


def test_a_signer_of_many_forks_does_not_fill_the_disk(witness: Witness, tmp_path: Path) -> None:
    """After 64 pieces more of it proves no more."""
    witness.add_checkpoint(submission(0, 7))
    for number in range(70):
        refusal(witness, submission(7, 7, Tree([b"%d" % number, *numbered(6)])))
    assert len(list((tmp_path / "witness" / EVIDENCE).rglob("*.submission"))) == 64


@pytest.mark.parametrize("content", [b"", b"\xff", b"old", b"a\n7\nb\n\n- x y\n"])
def test_a_damaged_state_is_never_taken_for_none(witness: Witness, tmp_path: Path, content: bytes) -> None:
    """Else one flipped bit would let a fork be cosigned."""
    witness.add_checkpoint(submission(0, 7))
    (tmp_path / "witness" / STATE).write_bytes(content)
    assert refusal(witness, submission(0, 9)).kind is RefusalKind.NOT_NOW


def test_a_state_of_another_key_or_log_is_refused(witness: Witness, tmp_path: Path, clock: Clock) -> None:
    """A file put in the place of another, and a folder under a new key."""
    witness.add_checkpoint(submission(0, 7))
    new_key = Witness(tmp_path / "witness", OTHER_COSIGNER, [SIGNER.verifier], now_s=clock)
    assert refusal(new_key, submission(0, 9)).kind is RefusalKind.NOT_NOW
    unsigned = TREE.head(3).note
    (tmp_path / "witness" / STATE).write_text(unsigned)
    assert refusal(witness, submission(0, 9)).kind is RefusalKind.NOT_NOW


def test_a_lost_state_of_an_enrolled_log_is_refused(witness: Witness, tmp_path: Path, clock: Clock) -> None:
    """Who is told that heads were cosigned does not begin again from nothing."""
    witness.add_checkpoint(submission(0, 7))
    (tmp_path / "witness" / STATE).unlink()
    careful = Witness(tmp_path / "witness", COSIGNER, [SIGNER.verifier], now_s=clock, enrolled=[SIGNER.name])
    assert refusal(careful, submission(0, 9)).kind is RefusalKind.NOT_NOW


def test_no_time_is_given_before_the_last_one(witness: Witness, clock: Clock) -> None:
    """A clock that went back stops the witness and not its word."""
    witness.add_checkpoint(submission(0, 7))
    clock.at_s -= 1
    assert refusal(witness, submission(7, 9)).kind is RefusalKind.NOT_NOW
    clock.at_s += 1
    witness.add_checkpoint(submission(7, 9))


def test_of_many_forks_at_once_one_is_cosigned(tmp_path: Path, clock: Clock) -> None:
    """Eight threads, each with a witness object of its own on one folder: check and change are one step."""
    start = threading.Barrier(8)
    outcomes: list[object] = []

    def submit(number: int) -> None:
        own = Witness(tmp_path / "witness", COSIGNER, [SIGNER.verifier], now_s=clock)
        text = submission(0, 3, Tree([b"%d" % number, *numbered(6)]))
        start.wait()
        try:
            outcomes.append(own.add_checkpoint(text).checkpoint)
        except WitnessRefused as refused:
            outcomes.append(refused.kind)

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(RefusalKind.OTHER_SIZE) == 7


def test_a_submission_is_read_as_it_was_written_and_nothing_else_is() -> None:
    """Round trip, and each rule of the text."""
    text = submission(7, 33)
    assert Submission.from_text(text).to_text() == text
    line = "A" * 43 + "=\n"
    too_long = text.replace("\n\n", "\n" + line * MAX_PROOF_LEN, 1)
    for broken in (text.replace("old 7", "old 07"), text.replace("old ", "new "), too_long, text[:-1], "old 1\n\n"):
        with pytest.raises(ProofRefused):
            Submission.from_text(broken)


@pytest.fixture
def server(witness: Witness) -> Iterator[WitnessServer]:
    """The witness over HTTP."""
    serving = WitnessServer(witness)
    yield serving
    serving.close()


def sink(url: str, folder: Path, tree: Tree = TREE, **more: object) -> WitnessSink:
    """A log's side."""
    folder.mkdir(exist_ok=True)
    address = WitnessAddress(HttpAddress.from_url(url), COSIGNER.verifier, **more)
    return WitnessSink(address, tree.prove, KeptNotes(folder, [COSIGNER.verifier, OTHER_COSIGNER.verifier]))


def anchor(of: WitnessSink, head: SignedHead, within_s: float = ENOUGH_S) -> int:
    """Have a head cosigned."""
    return of.anchor(head, time.monotonic() + within_s).size


def test_a_log_has_its_heads_cosigned_and_keeps_the_newest(server: WitnessServer, tmp_path: Path) -> None:
    """First contact, growth, and a client that forgot everything: the 409 tells it where the witness stands."""
    client = sink(server.url, tmp_path / "kept")
    assert anchor(client, TREE.head(7)) == 7
    assert anchor(client, TREE.head(33)) == 33
    kept = (tmp_path / "kept" / "w.example%2Fone.checkpoint").read_text()
    assert cosignatures_of(kept, [COSIGNER.verifier])
    assert open_checkpoint(kept, [SIGNER.verifier]) == TREE.head(33).checkpoint
    assert [body.split("\n")[0] for body in server.bodies] == ["old 0", "old 7"]
    assert anchor(sink(server.url, tmp_path / "forgot"), TREE.head(40)) == 40
    assert [body.split("\n")[0] for body in server.bodies[2:]] == ["old 0", "old 33"]


def test_a_log_that_was_rolled_back_or_forked_is_told_so(server: WitnessServer, tmp_path: Path) -> None:
    """By the note that it kept itself, and, where that was rolled back too, by the witness."""
    anchor(sink(server.url, tmp_path / "kept"), TREE.head(33))
    with pytest.raises(AnchorAhead, match="cosigned 33 entries, this log has 7"):
        anchor(sink(server.url, tmp_path / "kept"), TREE.head(7))
    with pytest.raises(AnchorAhead, match="cosigned 33 entries, this log has 7"):
        anchor(sink(server.url, tmp_path / "restored"), TREE.head(7))
    with pytest.raises(AnchorAhead, match="does not extend"):
        anchor(sink(server.url, tmp_path / "kept", FORK), FORK.head(40))
    with pytest.raises(AnchorAhead, match="another head of 33"):
        anchor(sink(server.url, tmp_path / "kept", FORK), FORK.head(33))


def test_two_witnesses_of_one_head_stand_under_one_note(server: WitnessServer, tmp_path: Path, clock: Clock) -> None:
    """What one said is carried to the other's file while both speak of the same head, and only then."""
    other = WitnessServer(Witness(tmp_path / "w2", OTHER_COSIGNER, [SIGNER.verifier], now_s=clock))
    kept = KeptNotes(tmp_path, [COSIGNER.verifier, OTHER_COSIGNER.verifier])
    both = [
        WitnessSink(WitnessAddress(HttpAddress.from_url(url), verifier), TREE.prove, kept)
        for url, verifier in ((server.url, COSIGNER.verifier), (other.url, OTHER_COSIGNER.verifier))
    ]
    for client in both:
        anchor(client, TREE.head(7))
    other.close()
    witnesses = [COSIGNER.verifier, OTHER_COSIGNER.verifier]
    for name in ("w.example%2Fone.checkpoint", "w.example%2Ftwo.checkpoint"):
        assert len(cosignatures_of((tmp_path / name).read_text(), witnesses)) == 2
    anchor(both[0], TREE.head(9))
    assert len(cosignatures_of((tmp_path / "w.example%2Fone.checkpoint").read_text(), witnesses)) == 1
    assert len(cosignatures_of((tmp_path / "w.example%2Ftwo.checkpoint").read_text(), witnesses)) == 2


def test_what_a_witness_refuses_is_said_with_the_remedy(server: WitnessServer, tmp_path: Path) -> None:
    """Not its log, not its key, not its path."""
    stranger = Tree(numbered(9), [LogSigner.from_seed("stranger.example", bytes(32))])
    with pytest.raises(AnchorFailed, match=r"answered 404.*public key"):
        anchor(sink(server.url, tmp_path / "kept", stranger), stranger.head(3))
    other_key = Tree(numbered(9), [OTHER_SIGNER])
    with pytest.raises(AnchorFailed, match="answered 403"):
        anchor(sink(server.url, tmp_path / "kept", other_key), other_key.head(3))


def test_an_answer_under_another_key_is_no_cosignature(tmp_path: Path, clock: Clock) -> None:
    """A witness in the middle that is not the configured one; nothing is kept."""
    impostor = WitnessServer(Witness(tmp_path / "w", OTHER_COSIGNER, [SIGNER.verifier], now_s=clock))
    with pytest.raises(AnchorFailed, match="no cosignature by the key"):
        anchor(sink(impostor.url, tmp_path / "kept"), TREE.head(7))
    impostor.close()
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_key_is_sent_from_a_private_file_and_from_no_other(server: WitnessServer, tmp_path: Path) -> None:
    """As a bearer; a file that others can read is refused before anything is sent."""
    key = tmp_path / "key"
    key.write_text("cls_dev_abc\n")
    key.chmod(0o644)
    with pytest.raises(AnchorFailed, match="chmod 600"):
        anchor(sink(server.url, tmp_path / "kept", key_file=key), TREE.head(7))
    assert server.bodies == []
    key.chmod(0o600)
    anchor(sink(server.url, tmp_path / "kept", key_file=key), TREE.head(7))
    assert server.authorizations == ["Bearer cls_dev_abc"]


def test_a_witness_that_accepts_and_never_answers_is_left_at_the_deadline(tmp_path: Path) -> None:
    """The server waits for the client to give up, not for time to pass."""
    gave_up = threading.Event()
    with listening(lambda _connection: gave_up.wait(ENOUGH_S) or pytest.fail("the sink never gave up")) as port:
        with pytest.raises(AnchorFailed, match="within the deadline"):
            anchor(sink(f"http://127.0.0.1:{port}", tmp_path / "kept"), TREE.head(7), within_s=0.2)
        gave_up.set()


def test_a_witness_that_sends_a_byte_now_and_then_is_left_at_the_deadline(tmp_path: Path) -> None:
    """Each read succeeds, so that only one deadline over all of them ends it."""
    gave_up = threading.Event()

    def drip(connection) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        try:
            while not gave_up.wait(0.01):
                connection.sendall(b"x-more: 1\r\n")
        except OSError:
            return  # the client hung up, as it should

    with listening(drip) as port:
        with pytest.raises(AnchorFailed):
            anchor(sink(f"http://127.0.0.1:{port}", tmp_path / "kept"), TREE.head(7), within_s=0.2)
        gave_up.set()


@pytest.mark.parametrize(
    "url", ["", "w.example", "ftp://w.example", "http://", "http://a:b@w.example", "http://w.example/?a=1"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """Before anything is sent anywhere."""
    with pytest.raises(ValueError, match="address"):
        HttpAddress.from_url(url)


def test_a_kept_note_that_was_altered_stops_its_own_witness_alone(server: WitnessServer, tmp_path: Path) -> None:
    """The file is named; it is neither believed nor replaced."""
    client = sink(server.url, tmp_path / "kept")
    anchor(client, TREE.head(7))
    kept = tmp_path / "kept" / "w.example%2Fone.checkpoint"
    kept.write_text(TREE.head(7).note)
    with pytest.raises(AnchorFailed, match=r"not cosigned by w\.example/one"):
        anchor(client, TREE.head(9))
    assert dataclasses.astuple(TREE.head(7))[1] == kept.read_text()
