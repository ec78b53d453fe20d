"""Signatures over a policy bundle: which files, in which order of succession, judged with which engine.

A bundle names its predecessor by digest, so that an older one cannot be slipped in between, nor one left out, without
breaking the chain.  The bundle's digest is the one that policy itself writes into every decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from types import MappingProxyType

from offline_bundle.dsse import IN_TOTO, sign_envelope
from offline_bundle.errors import DocumentRefused
from offline_bundle.folder import name_fault
from offline_bundle.keys import Signer, VerifyingKey
from offline_bundle.manifest import PolicyManifest
from offline_bundle.statement import decode_statement, encode_statement, is_sha256
from offline_bundle.threshold import open_by_threshold

PREDICATE_TYPE = "https://cloister/policy-bundle/v1"
_DOCUMENT = "policy signature"
_HINT = "restore the signed bundle, or have this one signed"


def bundle_digest(files: Mapping[str, str]) -> str:
    """SHA-256 over one line `<sha256>  <name>` per file, ordered by name: what `sha256sum` prints."""
    return sha256("".join(f"{files[name]}  {name}\n" for name in sorted(files)).encode()).hexdigest()


def sign_policy(files: Mapping[str, bytes], *, seq: int, previous: str, engine: str, signer: Signer) -> bytes:
    """One policy signer's envelope over the bytes of a bundle.

    Args:
        files: name inside the bundle -> its bytes.
        seq: 1 for the first bundle, else one more than its predecessor's.
        previous: the predecessor's digest; empty for the first.
        engine: the engine and version it was judged with.
        signer: who signs.
    """
    digests = {name: sha256(content).hexdigest() for name, content in files.items()}
    payload = encode_statement(
        digests, PREDICATE_TYPE, {"seq": seq, "previous": previous, "engine": engine, "digest": bundle_digest(digests)}
    )
    _decode(payload, ())
    return sign_envelope(IN_TOTO, payload, [signer])


def verify_policy(
    envelopes: Sequence[bytes],
    files: Mapping[str, bytes],
    *,
    trusted_keys: Iterable[VerifyingKey],
    threshold: int,
) -> PolicyManifest:
    """Return what at least `threshold` policy signers said about exactly these files.

    Raises:
        EvidenceRefused: malformed, badly signed, by too few, or a file differs, is missing or was not signed.
    """
    opened = open_by_threshold(envelopes, _DOCUMENT, IN_TOTO, trusted_keys, threshold)
    manifest = _decode(opened.payload, tuple(sorted(opened.key_ids)))
    for name in sorted({*manifest.files, *files}):
        if name not in files:
            raise DocumentRefused(_DOCUMENT, f"the signed file {name!a} is missing", hint=_HINT)
        if name not in manifest.files:
            raise DocumentRefused(_DOCUMENT, f"the file {name!a} was not signed", hint=_HINT)
        if sha256(files[name]).hexdigest() != manifest.files[name]:
            raise DocumentRefused(_DOCUMENT, f"the file {name!a} was changed after signing", hint=_HINT)
    return manifest


def check_succession(earlier: PolicyManifest | None, later: PolicyManifest) -> None:
    """Refuse a bundle that does not follow from the one before it (`None`: from nothing).

    Raises:
        DocumentRefused: a bundle was left out, replaced or replayed.
    """
    seq, previous = (earlier.seq, earlier.digest) if earlier else (0, "")
    if (later.seq, later.previous) != (seq + 1, previous):
        raise DocumentRefused(
            _DOCUMENT,
            f"bundle {later.seq} follows {later.previous[:16] or 'nothing'}, not bundle {seq}",
            hint="restore the bundles that are missing; an older bundle never comes back by itself",
        )


def _decode(payload: bytes, signers: tuple[str, ...]) -> PolicyManifest:
    files, predicate = decode_statement(payload, _DOCUMENT, PREDICATE_TYPE)
    seq, previous = predicate.integer("seq"), predicate.text("previous")
    engine, digest = predicate.text("engine"), predicate.text("digest")
    predicate.end()
    fault = next((f"{name!a}: {name_fault(name)}" for name in files if name_fault(name)), "")
    if digest != bundle_digest(files):
        fault = "its digest is not the one over its own files"
    if seq < 1 or (previous != "" and not is_sha256(previous)) or (seq == 1) != (previous == ""):
        fault = f"bundle {seq} cannot follow {previous[:16]!a}"
    if not engine:
        fault = "it names no engine"
    if fault:
        raise DocumentRefused(_DOCUMENT, fault, hint=_HINT)
    return PolicyManifest(MappingProxyType(files), digest, seq, previous, engine, signers)
