from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.errors import AuditCorrupt, KeyRefused, LogExists, LogMissing, SettingRefused, SubjectErased
from audit.subject_keys.commitment import Commitment, content_hmac
from audit.subject_keys.keyring import SubjectKeyring

KEK = b"\x21" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty keyring's file."""
    SubjectKeyring.create(tmp_path / "subject_keys.db", KEK).close()
    return tmp_path / "subject_keys.db"


def test_a_commitment_holds_for_its_content_request_and_phase_alone(path: Path) -> None:
    """Each input counts."""
    with SubjectKeyring(path, KEK) as keyring:
        commitment = keyring.commitment("alice", "req-1", "prompt", b"hello")
        assert keyring.check(commitment, "req-1", "prompt", b"hello")
        assert not keyring.check(commitment, "req-1", "prompt", b"hellp")
        assert not keyring.check(commitment, "req-2", "prompt", b"hello")
        assert not keyring.check(commitment, "req-1", "output", b"hello")
        assert not keyring.check(commitment, "req-1prompt", "", b"hello")


def test_equal_content_has_unrelated_commitments(path: Path) -> None:
    """Nobody can tell from two leaves that two prompts were the same."""
    with SubjectKeyring(path, KEK) as keyring:
        made = {
            keyring.commitment(subject, request, phase, b"same").hmac_hex
            for subject in ("alice", "bob")
            for request in ("req-1", "req-2")
            for phase in ("prompt", "output")
        }
    assert len(made) == 8


def test_commitments_can_be_checked_after_a_restart(path: Path) -> None:
    """The key is in the file, wrapped."""
    with SubjectKeyring(path, KEK) as keyring:
        first = keyring.commitment("alice", "req-1", "prompt", b"hello")
    with SubjectKeyring(path, KEK) as keyring:
        assert keyring.check(first, "req-1", "prompt", b"hello")
        assert keyring.commitment("alice", "req-2", "prompt", b"x").key_id == first.key_id


def test_a_destroyed_key_makes_its_commitments_unprovable_for_good(path: Path) -> None:
    """Others stay; a person who comes back gets a new key, the old one never returns."""
    with SubjectKeyring(path, KEK) as keyring:
        alice = keyring.commitment("alice", "req-1", "prompt", b"hello")
        bob = keyring.commitment("bob", "req-2", "prompt", b"hello")
        assert keyring.destroy(keyring.keys_of("alice").living) == (alice.key_id,)
        assert keyring.destroy(keyring.keys_of("alice").living) == ()
        with pytest.raises(SubjectErased):
            keyring.check(alice, "req-1", "prompt", b"hello")
        assert keyring.check(bob, "req-2", "prompt", b"hello")
        again = keyring.commitment("alice", "req-3", "prompt", b"hello")
        assert again.key_id != alice.key_id
    with SubjectKeyring(path, KEK) as keyring, pytest.raises(SubjectErased):
        keyring.check(alice, "req-1", "prompt", b"hello")


def test_no_byte_of_a_destroyed_key_is_left_in_the_files(path: Path) -> None:
    """Neither the main file nor its journal holds the wrapped key any more."""
    with SubjectKeyring(path, KEK) as keyring:
        keyring.commitment("alice", "req-1", "prompt", b"hello")
        raw = sqlite3.connect(path)
        [(wrapped,)] = raw.execute("SELECT wrapped FROM subject_key").fetchall()
        raw.close()
        files = [path, path.with_name(path.name + "-wal")]
        assert any(wrapped in file.read_bytes() for file in files)
        keyring.destroy(keyring.keys_of("alice").living)
        assert not any(wrapped in file.read_bytes() for file in files if file.exists())


def test_the_file_names_no_subject(path: Path) -> None:
    """Only a keyed mark: whoever copies the file learns nobody's name."""
    with SubjectKeyring(path, KEK) as keyring:
        keyring.commitment("alice.example", "req-1", "prompt", b"hello")
    assert b"alice" not in path.read_bytes()


def test_another_key_encryption_key_opens_nothing(path: Path) -> None:
    """Refused, never a wrong key in silence."""
    with SubjectKeyring(path, KEK) as keyring:
        keyring.commitment("alice", "req-1", "prompt", b"hello")
    with pytest.raises(AuditCorrupt, match="unwrapped"):
        SubjectKeyring(path, b"\x22" * 32)


def test_a_moved_or_altered_wrapped_key_is_refused(path: Path) -> None:
    """A wrapped key is bound to its own id."""
    with SubjectKeyring(path, KEK) as keyring:
        alice = keyring.commitment("alice", "req-1", "prompt", b"hello")
        bob = keyring.commitment("bob", "req-1", "prompt", b"hello")
    raw = sqlite3.connect(path)
    copy = "(SELECT {0} FROM subject_key WHERE key_id = ?)"
    statement = f"UPDATE subject_key SET nonce = {copy.format('nonce')}, wrapped = {copy.format('wrapped')}"
    raw.execute(f"{statement} WHERE key_id = ?", (bob.key_id, bob.key_id, alice.key_id))
    raw.commit()
    raw.close()
    with SubjectKeyring(path, KEK) as keyring, pytest.raises(AuditCorrupt, match=str(path)):
        keyring.check(alice, "req-1", "prompt", b"hello")


def test_an_unknown_key_id_is_not_an_erased_one(path: Path) -> None:
    """The wrong keyring is another mistake than an erased subject."""
    with SubjectKeyring(path, KEK) as keyring, pytest.raises(KeyRefused):
        keyring.check(Commitment("00" * 16, "00" * 32), "req-1", "prompt", b"")


def test_threads_agree_on_one_key_for_a_subject(path: Path) -> None:
    """A race for a new subject makes one key."""
    made: list[str] = []
    with SubjectKeyring(path, KEK) as keyring:
        barrier = threading.Barrier(8)

        def commit() -> None:
            barrier.wait()
            made.append(keyring.commitment("alice", "req-1", "prompt", b"x").key_id)

        threads = [threading.Thread(target=commit) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1


def test_a_key_in_memory_waits_for_nobody_who_waits_for_the_file(path: Path) -> None:
    """A thread that is at the file holds up those alone who need the file."""
    with SubjectKeyring(path, KEK) as keyring:
        first = keyring.commitment("alice", "req-1", "prompt", b"hello")
        with keyring._file_lock:
            assert keyring.commitment("alice", "req-1", "prompt", b"hello") == first


@pytest.mark.parametrize("function", ["_prove_settings", "insert"])
def test_a_creation_that_was_cut_short_leaves_no_keyring_and_can_be_repeated(tmp_path: Path, function: str) -> None:
    """The process dies with the file half made: there is none, and the next creation is not in its way."""
    path = tmp_path / "subject_keys.db"
    program = (
        "import os, sys, pathlib\n"
        "from audit.subject_keys import key_file, keyring\n"
        f"key_file.{function} = lambda *_: os._exit(9)\n"
        "keyring.SubjectKeyring.create(pathlib.Path(sys.argv[1]), bytes(32))\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == 9
    assert not path.exists()
    assert list(tmp_path.iterdir()) != []
    with SubjectKeyring.create(path, KEK) as keyring:
        commitment = keyring.commitment("alice", "req-1", "prompt", b"hello")
    with SubjectKeyring(path, KEK) as keyring:
        assert keyring.check(commitment, "req-1", "prompt", b"hello")
    assert [left.name for left in tmp_path.iterdir()] == [path.name]


def test_a_keyring_is_created_once_kept_private_and_never_made_by_opening(tmp_path: Path, path: Path) -> None:
    """The same rules as for the log itself."""
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(LogExists):
        SubjectKeyring.create(path, KEK)
    with pytest.raises(LogMissing):
        SubjectKeyring(tmp_path / "absent.db", KEK)
    path.chmod(0o604)
    with pytest.raises(SettingRefused):
        SubjectKeyring(path, KEK)


@given(st.tuples(st.text(max_size=5), st.text(max_size=5)), st.tuples(st.text(max_size=5), st.text(max_size=5)))
@settings(max_examples=50, deadline=None)
def test_request_and_phase_cannot_run_into_each_other(one: tuple[str, str], other: tuple[str, str]) -> None:
    """('ab', 'c') and ('a', 'bc') are two contexts."""
    same = content_hmac(KEK, *one, b"x") == content_hmac(KEK, *other, b"x")
    assert same == (one == other)
