"""From a signed model folder to verified bytes and expected digests; or a refusal that names the file.

Promise: a `VerifiedModel` means that a trusted key signed this folder, that enough approvers allow its root now, that
the folder holds the signed files and no others, and that every byte kept here was hashed after it was read.  The
weights are not read here: the engine hashes the very bytes it uses and compares them with `engine_digests`.  Every
file is hashed on one of the two sides.  Never: a link followed, a file read twice, a name without a signature.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from engine.config import FileDigest
from offline_bundle.approval import verify_approvals
from offline_bundle.dsse import MAX_ENVELOPE_BYTES
from offline_bundle.errors import FolderRefused, TrustError
from offline_bundle.folder import hash_file, list_folder, read_file
from offline_bundle.manifest import Approval, ModelManifest
from offline_bundle.model_signature import SIGNATURE_NAME, verify_signature
from offline_bundle.trust_root import Role, TrustRoot

WEIGHTS_SUFFIX = ".safetensors"
SINGLE_WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
READ_BY_BOTH = ("config.json", "generation_config.json", WEIGHTS_INDEX)
"""Small files that the engine reads too, and hashes again over the bytes that it uses."""
SUFFIXES = frozenset({"", ".jinja", ".json", ".md", ".safetensors", ".txt"})
"""What a model folder may hold: weights, tables and words.  No code, no pickle, no archive, signed or not."""
MAX_KEPT_BYTES = 256 * 2**20
"""Of one file that is kept in memory: a tokenizer, a template, a card."""
_DAMAGED = "the folder was changed after signing: restore this file from its release, or have the folder signed again"


class ModelRefused(Exception):
    """The model is not served; `file` is the name inside its folder, empty when no single file is at fault."""

    def __init__(self, file: str, reason: str, hint: str) -> None:
        super().__init__(f"model refused: {file + ': ' if file else ''}{reason} ({hint})")
        self.file = file
        self.reason = reason
        self.hint = hint
        """What the operator does about it."""


@dataclass(frozen=True, slots=True)
class VerifiedModel:
    """A model that may be loaded."""

    name: str
    """As approved; the name in the API."""
    manifest: ModelManifest
    approval: Approval
    files: Mapping[str, bytes] = field(repr=False)
    """Verified bytes of every file but the weights, by name."""
    engine_digests: tuple[FileDigest, ...]
    """What the engine may open, and the digests its bytes must have."""
    folder: Path


def open_model(folder: Path, trust_root: TrustRoot, approvals: Sequence[bytes], now: datetime) -> VerifiedModel:
    """Verify a model folder for serving.

    1. a trusted signer signed a manifest; 2. enough approvers allow its root under this name, now; 3. the folder holds
    exactly the signed files; 4. every file that the engine will not read is read and hashed here.  The caller owes:
    the engine gets `engine_digests` and no other path to the folder.

    Raises:
        ModelRefused: at the first fault; nothing of the model may be used.
    """
    manifest = _verify_signature(folder, trust_root)
    approval = _verify_approvals(folder, manifest, trust_root, approvals, now)
    _check_names(folder, manifest)
    files = {name: _read(folder, manifest, name) for name in manifest.files if not name.endswith(WEIGHTS_SUFFIX)}
    weights = _weights_of_engine(manifest, files)
    for name in manifest.files:
        if name.endswith(WEIGHTS_SUFFIX) and name not in weights:
            _check_unread(folder, manifest, name)
    return VerifiedModel(
        name=approval.name,
        manifest=manifest,
        approval=approval,
        files=MappingProxyType(files),
        engine_digests=tuple(
            FileDigest(name, digest)
            for name, digest in manifest.files.items()
            if name in weights or name in READ_BY_BOTH
        ),
        folder=folder,
    )


def _verify_signature(folder: Path, trust_root: TrustRoot) -> ModelManifest:
    with _refusing(SIGNATURE_NAME):
        if not folder.is_dir():
            raise ModelRefused("", f"there is no folder {folder}", "import the model, or correct its name")
        if not (folder / SIGNATURE_NAME).exists():
            raise ModelRefused(SIGNATURE_NAME, "it is missing", "nothing unsigned runs: have the folder signed")
        raw = read_file(folder, SIGNATURE_NAME, max_bytes=MAX_ENVELOPE_BYTES)
        return verify_signature(raw, trust_root.keys_for(Role.MODEL_SIGNER))


def _verify_approvals(
    folder: Path, manifest: ModelManifest, trust_root: TrustRoot, envelopes: Sequence[bytes], now: datetime
) -> Approval:
    with _refusing(""):
        approval = verify_approvals(
            envelopes,
            trusted_keys=trust_root.keys_for(Role.MODEL_APPROVER),
            threshold=trust_root.threshold(Role.MODEL_APPROVER),
            root=manifest.root,
            now=now,
        )
    if approval.name != folder.name:
        raise ModelRefused(
            "",
            f"it is approved as {approval.name!a} but lies in a folder {folder.name!a}",
            "name the folder as approved, or have the model approved under this name",
        )
    return approval


def _check_names(folder: Path, manifest: ModelManifest) -> None:
    with _refusing(""):
        found = set(list_folder(folder)) - {SIGNATURE_NAME}
    for name in sorted(found - set(manifest.files)):
        raise ModelRefused(name, "it is not in the signed manifest", "remove it, or have the folder signed again")
    for name in sorted(manifest.files):
        if PurePosixPath(name).suffix.lower() not in SUFFIXES:
            raise ModelRefused(name, "files of this kind have no place in a model", "remove it, then sign again")
    for name in sorted(set(manifest.files) - found):
        raise ModelRefused(name, "it is in the signed manifest but missing", _DAMAGED)


def _read(folder: Path, manifest: ModelManifest, name: str) -> bytes:
    with _refusing(name):
        content = read_file(folder, name, max_bytes=MAX_KEPT_BYTES)
    _check_digest(manifest, name, sha256(content).hexdigest())
    return content


def _check_unread(folder: Path, manifest: ModelManifest, name: str) -> None:
    """A weight file that no index names: nobody uses it, but a changed byte still stops the load."""
    with _refusing(name):
        found = hash_file(folder, name)
    _check_digest(manifest, name, found)


def _check_digest(manifest: ModelManifest, name: str, found: str) -> None:
    if found != manifest.files[name]:
        raise ModelRefused(name, f"its SHA-256 is {found}, signed is {manifest.files[name]}", _DAMAGED)


def _weights_of_engine(manifest: ModelManifest, files: Mapping[str, bytes]) -> frozenset[str]:
    """The weight files that the engine reads, by the same rule as it: what the index names, else the single file."""
    if WEIGHTS_INDEX not in files:
        return frozenset({SINGLE_WEIGHTS} & manifest.files.keys())
    try:
        named = frozenset(json.loads(files[WEIGHTS_INDEX])["weight_map"].values())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelRefused(WEIGHTS_INDEX, "it is not an index of weight files", "have the model made again") from error
    for name in sorted(named - manifest.files.keys(), key=str):
        raise ModelRefused(WEIGHTS_INDEX, f"it names {name!a}, which is not signed", "have the whole folder signed")
    return named


@contextmanager
def _refusing(file: str) -> Iterator[None]:
    """Turn a refusal of trust into the refusal of this model, naming the file where one is at fault."""
    try:
        yield
    except FolderRefused as refusal:
        raise ModelRefused(refusal.file or file, refusal.reason, refusal.hint) from refusal
    except TrustError as refusal:
        raise ModelRefused(file, refusal.message, refusal.hint) from refusal
