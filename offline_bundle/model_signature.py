"""OpenSSF Model Signing 1.0 with bare keys: `model.sig`, exchanged both ways with the released `model_signing` tool.

Form: sigstore bundle v0.3, DSSE, in-toto Statement v1, method `files`, SHA-256, ECDSA P-256 or P-384.  The model's
root is the SHA-256 over the raw file digests in the order in which they stand.  Stricter than the released tool: a
manifest is never empty and names no file twice; nothing is skipped but the signature itself, so that a file dropped
into `.git` is found as unlisted; the key is named; no certificate chain, no log entry, no older predicate.

The released tool always writes the names of Git's files into `ignore_paths`.  They are accepted as words and never
acted on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from types import MappingProxyType

from offline_bundle.dsse import (
    IN_TOTO,
    MAX_ENVELOPE_BYTES,
    Envelope,
    EnvelopeSignature,
    bad_signature,
    envelope_fields,
    pae,
    read_envelope,
    untrusted,
)
from offline_bundle.errors import DocumentRefused, FolderRefused
from offline_bundle.folder import name_fault
from offline_bundle.keys import Signer, VerifyingKey
from offline_bundle.manifest import ModelManifest
from offline_bundle.statement import STATEMENT_TYPE, is_sha256
from offline_bundle.strict_json import Fields, Json, canonical, parse

SIGNATURE_NAME = "model.sig"
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
GIT_NAMES = frozenset({".git", ".gitattributes", ".github", ".gitignore"})
"""Top-level names that the released tool never looks at."""
_DOCUMENT = "model signature"
_HINT = "have the folder signed again"


def model_root(digests: Iterable[str]) -> str:
    """The identity of a model: SHA-256 over its files' raw digests in manifest order."""
    return sha256(b"".join(bytes.fromhex(digest) for digest in digests)).hexdigest()


def sign_digests(name: str, digests: Mapping[str, str], signer: Signer) -> bytes:
    """The content of `model.sig` over digests that the caller took from the files.

    Args:
        name: of the model, informative only; the released tool writes the folder's name.
        digests: file name -> SHA-256.
        signer: who signs.
    """
    for file in digests:
        if file.split("/")[0] in GIT_NAMES:
            raise FolderRefused(
                file,
                "the released model_signing tool never looks at it, so a signature over it could not be exchanged",
                hint="remove it: a model needs no file of Git",
            )
    if not digests:
        raise FolderRefused("", "the folder holds no file", hint="is it the right folder?")
    ordered = sorted(digests, key=_component_order)
    statement: dict[str, Json] = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": model_root(digests[file] for file in ordered)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "resources": [{"name": file, "digest": digests[file], "algorithm": "sha256"} for file in ordered],
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE_NAME],
            },
        },
    }
    payload = canonical(statement)
    envelope = Envelope(IN_TOTO, payload, (EnvelopeSignature("", signer.sign(pae(IN_TOTO, payload))),))
    bundle: dict[str, Json] = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": signer.verifying_key.key_id}, "tlogEntries": []},
        "dsseEnvelope": envelope_fields(envelope),
    }
    return canonical(bundle)


def verify_signature(raw: bytes, trusted_keys: Iterable[VerifyingKey]) -> ModelManifest:
    """Return what a trusted key signed about a folder.

    1. parse the bundle; 2. find the trusted key that its hint names; 3. check the signature over type and payload; 4.
    only then read the statement, strictly; 5. recompute the root.  The caller still owes: that the folder holds these
    files and no others, hashed over the very bytes it uses.

    Raises:
        DocumentRefused: not of the one accepted form.
        SignatureRefused: no trusted key signed it.
    """
    hint, envelope = _parse_bundle(raw)
    key = next((key for key in trusted_keys if key.key_id == hint), None)
    if key is None:
        raise untrusted(_DOCUMENT, [hint])
    if not key.verifies(pae(envelope.payload_type, envelope.payload), envelope.signatures[0].signature):
        raise bad_signature(_DOCUMENT, hint)
    return _parse_statement(envelope.payload, signer=key.key_id)


def unsafe_unverified_root(raw: bytes) -> str:
    """Return the root that a `model.sig` speaks of, whoever wrote it; nothing may be loaded on its word.

    Raises:
        DocumentRefused: not of the one accepted form.
    """
    hint, envelope = _parse_bundle(raw)
    return _parse_statement(envelope.payload, signer=hint).root


def _parse_bundle(raw: bytes) -> tuple[str, Envelope]:
    bundle = Fields(parse(raw, _DOCUMENT, max_bytes=MAX_ENVELOPE_BYTES), _DOCUMENT)
    if bundle.text("mediaType") != MEDIA_TYPE:
        raise _refused(f"its media type is not {MEDIA_TYPE}")
    material = bundle.fields("verificationMaterial")
    if not material.has("publicKey"):
        raise _refused("it rests on a certificate, not on a bare key")
    if material.has("tlogEntries") and material.items("tlogEntries"):
        raise _refused("it rests on a transparency log, which nobody here can ask")
    public_key = material.fields("publicKey")
    hint = public_key.text("hint")
    public_key.end()
    material.end()
    envelope = read_envelope(bundle.fields("dsseEnvelope"), _DOCUMENT)
    bundle.end()
    if not is_sha256(hint):
        raise _refused("its key hint is not a SHA-256")
    if envelope.payload_type != IN_TOTO:
        raise _refused(f"its payload type is not {IN_TOTO}")
    if len(envelope.signatures) != 1:
        raise _refused("it carries more than one signature, of which other tools check only the first")
    if envelope.signatures[0].key_id not in ("", hint):
        raise _refused("its signature names another key than its hint")
    return hint, envelope


def _parse_statement(payload: bytes, *, signer: str) -> ModelManifest:
    statement = Fields(parse(payload, _DOCUMENT, max_bytes=MAX_ENVELOPE_BYTES), _DOCUMENT)
    if statement.text("_type") != STATEMENT_TYPE:
        raise _refused(f"its statement is not of type {STATEMENT_TYPE}")
    if statement.text("predicateType") != PREDICATE_TYPE:
        raise _refused(f"its predicate is not of type {PREDICATE_TYPE}")
    name, root = _parse_subject(statement.items("subject"))
    predicate = statement.fields("predicate")
    statement.end()
    _check_serialization(predicate.fields("serialization"))
    files = _parse_resources(predicate.items("resources"))
    predicate.end()
    if model_root(files.values()) != root:
        raise _refused("its root is not the hash over its own file digests")
    return ModelManifest(name=name, files=MappingProxyType(files), root=root, signer=signer)


def _parse_subject(subjects: Sequence[Json]) -> tuple[str, str]:
    if len(subjects) != 1:
        raise _refused("it has not exactly one subject")
    subject = Fields(subjects[0], _DOCUMENT, "subject")
    name = subject.text("name")
    digest = subject.fields("digest")
    root = digest.text("sha256")
    digest.end()
    subject.end()
    if not is_sha256(root):
        raise _refused("its subject's digest is not a SHA-256")
    return name, root


def _check_serialization(serialization: Fields) -> None:
    if serialization.text("method") != "files" or serialization.text("hash_type") != "sha256":
        raise _refused("it was not made by method 'files' with SHA-256")
    if serialization.boolean("allow_symlinks"):
        raise _refused("it allows symbolic links")
    ignored = serialization.texts("ignore_paths") if serialization.has("ignore_paths") else ()
    serialization.end()
    for path in ignored:
        if path != SIGNATURE_NAME and path not in GIT_NAMES:
            raise _refused(f"it ignores {path!a}")


def _parse_resources(resources: Sequence[Json]) -> dict[str, str]:
    if not resources:
        raise _refused("it lists no file")
    files: dict[str, str] = {}
    for resource in resources:
        entry = Fields(resource, _DOCUMENT, "resources")
        name, digest = entry.text("name"), entry.text("digest")
        if entry.text("algorithm") != "sha256" or not is_sha256(digest):
            raise _refused(f"the digest of {name!a} is not a SHA-256")
        if entry.has("annotations"):
            entry.mapping("annotations")  # the format allows them; we draw nothing from them
        entry.end()
        fault = name_fault(name)
        if fault or name == SIGNATURE_NAME:
            raise _refused(f"it lists {name!a}: {fault or 'a signature cannot cover itself'}")
        if name in files:
            raise _refused(f"it lists {name!a} twice")
        files[name] = digest
    names = list(files)
    if names not in (sorted(names), sorted(names, key=_component_order)):
        raise _refused("its files are not in order")
    return files


def _component_order(name: str) -> list[str]:
    """The released tool orders by path component, so that `a/b` stands before `a.txt`."""
    return name.split("/")


def _refused(reason: str) -> DocumentRefused:
    return DocumentRefused(_DOCUMENT, reason, hint=_HINT)
