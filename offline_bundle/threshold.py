"""m of n: one envelope per signer over identical bytes, counted by distinct trusted keys.

Laws: the same key counts once however many files carry it; an envelope by strangers counts nothing, so that a key may
retire; two trusted signers of different bytes prove nothing together and are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from offline_bundle.dsse import OpenedEnvelope, parse_envelope, trusted_signers
from offline_bundle.errors import DocumentRefused, ThresholdNotMet
from offline_bundle.keys import VerifyingKey

MAX_ENVELOPES = 64


def open_by_threshold(
    envelopes: Sequence[bytes],
    document: str,
    payload_type: str,
    trusted_keys: Iterable[VerifyingKey],
    threshold: int,
) -> OpenedEnvelope:
    """Return the one payload that at least `threshold` distinct trusted keys signed.

    Raises:
        DocumentRefused: an envelope is malformed, or trusted signers signed different bytes.
        SignatureRefused: a signature that names a trusted key is bad.
        ThresholdNotMet: too few distinct trusted keys.
    """
    if threshold < 1:
        raise ValueError(f"a threshold of {threshold} would accept an unsigned document")
    if len(envelopes) > MAX_ENVELOPES:
        raise DocumentRefused(document, f"more than {MAX_ENVELOPES} envelopes", hint="remove the foreign ones")
    keys = tuple(trusted_keys)
    payload: bytes | None = None
    signed_by: frozenset[str] = frozenset()
    for raw in envelopes:
        envelope = parse_envelope(raw, document)
        if envelope.payload_type != payload_type:
            raise DocumentRefused(document, f"not of type {payload_type}", hint="is it the right file?")
        signers = trusted_signers(envelope, document, keys)
        if not signers:
            continue
        if payload is not None and envelope.payload != payload:
            raise DocumentRefused(
                document, "its signers signed different texts", hint="have all of them sign the same one"
            )
        payload, signed_by = envelope.payload, signed_by | signers
    if payload is None or len(signed_by) < threshold:
        raise ThresholdNotMet(document, num_signers=len(signed_by), threshold=threshold)
    return OpenedEnvelope(payload, signed_by)
