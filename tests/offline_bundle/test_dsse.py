"""Envelopes: what is signed is type and payload, and nothing unsigned gets out."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_bundle.dsse import open_envelope, pae, parse_envelope, sign_envelope
from offline_bundle.errors import DocumentRefused, SignatureRefused, TrustError
from offline_bundle.keys import SigningKey

TYPE = "application/x-test"


def test_pre_authentication_encoding_is_that_of_the_specification() -> None:
    """The example of the DSSE v1 protocol text."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@settings(deadline=None, max_examples=100)
@given(a=st.tuples(st.text(max_size=5), st.binary(max_size=8)), b=st.tuples(st.text(max_size=5), st.binary(max_size=8)))
def test_different_type_or_payload_never_encode_alike(a: tuple[str, bytes], b: tuple[str, bytes]) -> None:
    """The encoding is injective, so a signature fixes type and payload."""
    assert (pae(*a) == pae(*b)) == (a == b)


def test_opened_payload_was_signed_by_the_named_keys(make_key: Callable[[str], SigningKey]) -> None:
    """Every trusted signer is told, no other."""
    first, second, foreign = make_key("1"), make_key("2"), make_key("3")
    raw = sign_envelope(TYPE, b"payload", [first, second, foreign])
    opened = open_envelope(raw, "document", TYPE, [first.verifying_key, second.verifying_key])
    assert opened.payload == b"payload"
    assert opened.key_ids == {first.verifying_key.key_id, second.verifying_key.key_id}


def test_signing_twice_gives_the_same_bytes(signer: SigningKey) -> None:
    """Deterministic signatures make a rebuilt envelope comparable."""
    assert sign_envelope(TYPE, b"payload", [signer, signer]) == sign_envelope(TYPE, b"payload", [signer])


def test_stripped_signature_is_refused(signer: SigningKey) -> None:
    """Nothing unsigned is ever accepted."""
    envelope = json.loads(sign_envelope(TYPE, b"payload", [signer]))
    envelope["signatures"] = []
    with pytest.raises(DocumentRefused, match="unsigned"):
        open_envelope(json.dumps(envelope).encode(), "document", TYPE, [signer.verifying_key])


def test_signature_by_a_stranger_is_refused_by_key_id(signer: SigningKey, stranger: SigningKey) -> None:
    """The refusal names the key that did sign."""
    raw = sign_envelope(TYPE, b"payload", [stranger])
    with pytest.raises(SignatureRefused, match=stranger.verifying_key.key_id[:16]):
        open_envelope(raw, "document", TYPE, [signer.verifying_key])


def test_stranger_claiming_a_trusted_key_id_is_refused(signer: SigningKey, stranger: SigningKey) -> None:
    """A key id is a claim; the signature decides."""
    envelope = json.loads(sign_envelope(TYPE, b"payload", [stranger]))
    envelope["signatures"][0]["keyid"] = signer.verifying_key.key_id
    with pytest.raises(SignatureRefused, match="does not verify"):
        open_envelope(json.dumps(envelope).encode(), "document", TYPE, [signer.verifying_key])


def test_payload_signed_under_another_type_is_refused(signer: SigningKey) -> None:
    """An approval cannot be passed off as a policy: both the claim and the signature fix the type."""
    raw = sign_envelope("application/x-other", b"payload", [signer])
    with pytest.raises(DocumentRefused, match="type"):
        open_envelope(raw, "document", TYPE, [signer.verifying_key])
    relabelled = json.loads(raw)
    relabelled["payloadType"] = TYPE
    with pytest.raises(SignatureRefused):
        open_envelope(json.dumps(relabelled).encode(), "document", TYPE, [signer.verifying_key])


def test_one_key_twice_is_refused(signer: SigningKey) -> None:
    """Two signatures by one key must never look like two signers."""
    envelope = json.loads(sign_envelope(TYPE, b"payload", [signer]))
    envelope["signatures"] *= 2
    with pytest.raises(DocumentRefused, match="twice"):
        parse_envelope(json.dumps(envelope).encode(), "document")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda e: e.update(extra=1),
        lambda e: e.pop("payloadType"),
        lambda e: e.pop("payload"),
        lambda e: e.update(payload=e["payload"].rstrip("=") + "\n"),
        lambda e: e.update(payload=base64.urlsafe_b64encode(b"\xfb\xff\xfe").decode()),
        lambda e: e.update(payload="cGF5bG9hZB=="),
        lambda e: e.update(signatures={}),
        lambda e: e["signatures"][0].update(cert="x"),
        lambda e: e["signatures"][0].pop("sig"),
        lambda e: e["signatures"][0].update(sig="A" * 400),
        lambda e: e.update(signatures=[{"sig": "AA=="}] * 40),
    ],
)
def test_envelope_of_any_other_form_is_refused(signer: SigningKey, spoil: Callable[[dict], object]) -> None:
    """Unknown fields, second spellings of base64 and absent parts: one form only."""
    envelope = json.loads(sign_envelope(TYPE, b"payload", [signer]))
    spoil(envelope)
    with pytest.raises(DocumentRefused):
        parse_envelope(json.dumps(envelope).encode(), "document")


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_no_single_flipped_bit_is_accepted_as_another_payload(data: st.DataObject) -> None:
    """Whatever bit changes on the medium: the same payload by the same key comes out, or nothing."""
    key = SigningKey.generate(lambda count: b"\x07" * count)
    raw = bytearray(sign_envelope(TYPE, b"payload", [key]))
    position = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[position // 8] ^= 1 << position % 8
    try:
        opened = open_envelope(bytes(raw), "document", TYPE, [key.verifying_key])
    except TrustError:
        return
    assert opened.payload == b"payload"
