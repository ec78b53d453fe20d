"""Laws of sealed content: it opens whole, for its own request, phase and subject, or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.errors import AuditCorrupt, KeyRefused, SubjectErased
from audit.subject_keys.commitment import content_hmac
from audit.subject_keys.keyring import SubjectKeyring
from audit.subject_keys.sealing import NONCE_BYTES, TAG_BYTES, Sealed, open_content, seal_content

KEYS = st.binary(min_size=32, max_size=32)
NONCES = st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES)
NAMES = st.text(max_size=20)
CONTENTS = st.binary(max_size=200)


def sealed(key: bytes, request: str, phase: str, content: bytes, nonce: bytes) -> Sealed:
    """Seal under a key of the id `k`."""
    return Sealed("k", nonce, seal_content(key, request, phase, content, nonce))


@given(key=KEYS, request=NAMES, phase=NAMES, content=CONTENTS, nonce=NONCES)
def test_what_was_sealed_opens_to_the_same_bytes(key, request, phase, content, nonce):
    """And the ciphertext is the content's length plus the tag: nothing else is told."""
    made = sealed(key, request, phase, content, nonce)
    assert open_content(key, request, phase, made) == content
    assert len(made.ciphertext) == len(content) + TAG_BYTES


@given(key=KEYS, content=CONTENTS, nonce=NONCES, other=st.tuples(NAMES, NAMES), own=st.tuples(NAMES, NAMES))
def test_it_opens_for_no_other_request_or_phase(key, content, nonce, own, other):
    """The two are bound apart: no pair of names can be read as another pair."""
    if own == other:
        return
    with pytest.raises(AuditCorrupt):
        open_content(key, *other, sealed(key, *own, content, nonce))


def test_names_do_not_run_into_each_other():
    """The classic: `a` and `bc`, `ab` and `c`."""
    with pytest.raises(AuditCorrupt):
        open_content(bytes(32), "ab", "c", sealed(bytes(32), "a", "bc", b"x", bytes(NONCE_BYTES)))


@settings(max_examples=200)
@given(key=KEYS, nonce=NONCES, content=CONTENTS, data=st.data())
def test_one_flipped_bit_anywhere_opens_nothing(key, nonce, content, data):
    """Of the nonce, the ciphertext or the tag."""
    made = sealed(key, "req-1", "prompt", content, nonce)
    whole = made.nonce + made.ciphertext
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    altered = replace(made, nonce=bytes(flipped[:NONCE_BYTES]), ciphertext=bytes(flipped[NONCE_BYTES:]))
    with pytest.raises(AuditCorrupt):
        open_content(key, "req-1", "prompt", altered)


@pytest.mark.parametrize("num_bytes", range(len(b"hello") + TAG_BYTES))
def test_a_shorter_ciphertext_opens_nothing(num_bytes):
    """Every length from none up to one byte less."""
    made = sealed(bytes(32), "req-1", "prompt", b"hello", bytes(NONCE_BYTES))
    with pytest.raises(AuditCorrupt):
        open_content(bytes(32), "req-1", "prompt", replace(made, ciphertext=made.ciphertext[:num_bytes]))


@pytest.mark.parametrize("nonce", [b"", b"x", bytes(13), bytes(200)])
def test_a_nonce_of_another_length_is_damage(nonce):
    """Never a leaked ValueError."""
    made = sealed(bytes(32), "req-1", "prompt", b"hello", bytes(NONCE_BYTES))
    with pytest.raises(AuditCorrupt):
        open_content(bytes(32), "req-1", "prompt", replace(made, nonce=nonce))


def test_the_content_key_is_no_commitment_key():
    """Sealing under what a commitment is keyed by would open here; it does not."""
    key = bytes(range(32))
    made = sealed(key, "req-1", "prompt", b"hello", bytes(NONCE_BYTES))
    as_key = bytes.fromhex(content_hmac(key, "req-1", "prompt", b""))
    with pytest.raises(AuditCorrupt):
        open_content(as_key, "req-1", "prompt", made)


def test_the_keyring_seals_for_one_subject_alone(tmp_path):
    """Each with its own key and a fresh nonce; another's ciphertext under one's own key id opens nothing."""
    with SubjectKeyring.create(tmp_path / "keys.db", bytes(32)) as keyring:
        alice, bob = (keyring.seal(name, "req-1", "prompt", b"same") for name in ("alice", "bob"))
        again = keyring.seal("alice", "req-1", "prompt", b"same")
        assert keyring.unseal(alice, "req-1", "prompt") == keyring.unseal(bob, "req-1", "prompt") == b"same"
        assert alice.nonce != again.nonce
        assert alice.ciphertext not in (bob.ciphertext, again.ciphertext)
        with pytest.raises(AuditCorrupt):
            keyring.unseal(replace(bob, key_id=alice.key_id), "req-1", "prompt")
        with pytest.raises(KeyRefused):
            keyring.unseal(replace(bob, key_id="0" * 32), "req-1", "prompt")


def test_nothing_is_unsealed_after_erasure_and_a_request_gets_no_second_key(tmp_path):
    """What began under a key ends under that key or not at all; a new request has a new key."""
    with SubjectKeyring.create(tmp_path / "keys.db", bytes(32)) as keyring:
        made = keyring.seal("alice", "req-1", "prompt", b"hello")
        assert keyring.destroy(keyring.keys_of("alice").living) == (made.key_id,)
        for use in (
            lambda: keyring.unseal(made, "req-1", "prompt"),
            lambda: keyring.seal("alice", "req-1", "output", b"x", key_id=made.key_id),
            lambda: keyring.commitment("alice", "req-1", "output", b"x", key_id=made.key_id),
        ):
            with pytest.raises(SubjectErased):
                use()
        assert keyring.keys_of("alice").living == ()
        assert keyring.keys_of("alice").destroyed == (made.key_id,)
        assert keyring.seal("alice", "req-2", "prompt", b"x").key_id != made.key_id


def test_many_keys_are_destroyed_and_looked_for_at_once(tmp_path):
    """More than one statement takes; those of others stay."""
    with SubjectKeyring.create(tmp_path / "keys.db", bytes(32)) as keyring:
        made = {name: keyring.seal(name, "req-1", "prompt", b"x").key_id for name in map(str, range(1_203))}
        gone = [key_id for name, key_id in made.items() if name != "7"]
        assert keyring.living_among([*gone, "0" * 32]) == tuple(sorted(gone))
        assert keyring.destroy(gone) == tuple(sorted(gone))
        assert keyring.living_among(made.values()) == (made["7"],)
        assert keyring.destroy(gone) == ()
