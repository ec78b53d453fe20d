"""DSSE v1 envelopes: signed bytes with the type of what they say.

Promise: `open_envelope` hands out a payload only after trusted keys signed that payload under that very type.  Laws:
parsing accepts one base64 text per value; no two signatures by one key; the signed bytes are the pre-authentication
encoding of type and payload.  Signatures by keys that are not trusted prove nothing and harm nothing; a bad signature
by a trusted key is refused.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from offline_bundle.errors import DocumentRefused, SignatureRefused
from offline_bundle.keys import Signer, VerifyingKey
from offline_bundle.strict_json import Fields, Json, canonical, parse

IN_TOTO = "application/vnd.in-toto+json"
MAX_ENVELOPE_BYTES = 32 * 2**20
_MAX_SIGNATURES = 32
_MAX_SIGNATURE_BYTES = 160
"""DER of two 48-byte numbers needs 104."""


@dataclass(frozen=True, slots=True)
class EnvelopeSignature:
    """One signature as it stands in the envelope; the key id is a claim until it verifies."""

    key_id: str
    """Empty where the format names the key elsewhere."""
    signature: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed envelope; nothing in it is proven."""

    payload_type: str
    payload: bytes
    signatures: tuple[EnvelopeSignature, ...]


@dataclass(frozen=True, slots=True)
class OpenedEnvelope:
    """A payload and the trusted keys that signed it, never none."""

    payload: bytes
    key_ids: frozenset[str]


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: type and payload with their lengths."""
    encoded_type = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(encoded_type), encoded_type, len(payload), payload)


def sign_envelope(payload_type: str, payload: bytes, signers: Sequence[Signer]) -> bytes:
    """One envelope with a signature by each signer, in order of their key ids."""
    message = pae(payload_type, payload)
    by_id = {signer.verifying_key.key_id: signer for signer in signers}
    signatures = tuple(EnvelopeSignature(key_id, by_id[key_id].sign(message)) for key_id in sorted(by_id))
    return canonical(envelope_fields(Envelope(payload_type, payload, signatures)))


def envelope_fields(envelope: Envelope) -> dict[str, Json]:
    """The envelope as JSON."""
    return {
        "payload": base64.b64encode(envelope.payload).decode(),
        "payloadType": envelope.payload_type,
        "signatures": [
            {"keyid": signature.key_id, "sig": base64.b64encode(signature.signature).decode()}
            for signature in envelope.signatures
        ],
    }


def parse_envelope(raw: bytes, document: str) -> Envelope:
    """Parse an envelope that stands alone."""
    return read_envelope(Fields(parse(raw, document, max_bytes=MAX_ENVELOPE_BYTES), document), document)


def read_envelope(fields: Fields, document: str) -> Envelope:
    """Parse an envelope that is part of a larger document."""
    payload_type = fields.text("payloadType")
    payload = decode_base64(fields.text("payload"), document, "the payload")
    entries = fields.items("signatures")
    fields.end()
    if not 1 <= len(entries) <= _MAX_SIGNATURES:
        raise DocumentRefused(
            document,
            f"{len(entries)} signatures, between 1 and {_MAX_SIGNATURES} are accepted",
            hint="an unsigned document is never accepted; have it signed",
        )
    signatures = tuple(_read_signature(Fields(entry, document, "signatures"), document) for entry in entries)
    named = [signature.key_id for signature in signatures if signature.key_id]
    if len(set(named)) != len(named):
        raise DocumentRefused(document, "one key signed twice", hint="remove the second signature")
    return Envelope(payload_type, payload, signatures)


def open_envelope(raw: bytes, document: str, payload_type: str, trusted_keys: Iterable[VerifyingKey]) -> OpenedEnvelope:
    """Parse an envelope and return its payload with the trusted keys that signed it.

    Raises:
        DocumentRefused: not an envelope, or of another type.
        SignatureRefused: no trusted key signed, or a signature that names a trusted key is bad.
    """
    envelope = parse_envelope(raw, document)
    if envelope.payload_type != payload_type:
        raise DocumentRefused(
            document, f"its type is {envelope.payload_type!a}, not {payload_type}", hint="is it the right file?"
        )
    signed_by = trusted_signers(envelope, document, trusted_keys)
    if not signed_by:
        raise untrusted(document, sorted(entry.key_id for entry in envelope.signatures))
    return OpenedEnvelope(envelope.payload, signed_by)


def trusted_signers(envelope: Envelope, document: str, trusted_keys: Iterable[VerifyingKey]) -> frozenset[str]:
    """The trusted keys that signed; empty when only strangers did.

    Raises:
        SignatureRefused: a signature that names a trusted key is bad.
    """
    trusted = {key.key_id: key for key in trusted_keys}
    message = pae(envelope.payload_type, envelope.payload)
    signed_by: set[str] = set()
    for entry in envelope.signatures:
        key = trusted.get(entry.key_id)
        if key is None:
            continue
        if not key.verifies(message, entry.signature):
            raise bad_signature(document, key.key_id)
        signed_by.add(key.key_id)
    return frozenset(signed_by)


def bad_signature(document: str, key_id: str) -> SignatureRefused:
    """The refusal of a signature that its own key did not make over these bytes."""
    return SignatureRefused(
        document,
        f"the signature by key {key_id[:16]} does not verify",
        hint="the document was changed after signing; take it from its source again",
    )


def untrusted(document: str, key_ids: Sequence[str]) -> SignatureRefused:
    """The refusal of a document that only strangers signed."""
    shown = ", ".join(key_id[:16] or "an unnamed key" for key_id in key_ids)
    return SignatureRefused(
        document,
        f"signed by {shown!a}, which the trust root does not list for this role",
        hint="have it signed by a listed key, or bring the next trust root",
    )


def decode_base64(text: str, document: str, what: str) -> bytes:
    """Standard base64 with padding, one text per value."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DocumentRefused(document, f"{what} is not base64", hint="the document is damaged") from error
    if base64.b64encode(decoded).decode() != text:
        raise DocumentRefused(document, f"{what} is not canonical base64", hint="the document is damaged")
    return decoded


def _read_signature(fields: Fields, document: str) -> EnvelopeSignature:
    key_id = fields.text("keyid") if fields.has("keyid") else ""
    signature = decode_base64(fields.text("sig"), document, "a signature")
    fields.end()
    if len(signature) > _MAX_SIGNATURE_BYTES:
        raise DocumentRefused(document, "a signature is too long", hint="only ECDSA P-256 and P-384 are accepted")
    return EnvelopeSignature(key_id, signature)
