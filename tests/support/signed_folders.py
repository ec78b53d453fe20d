"""Whole model folders, signed with what the product signs digests with."""

from __future__ import annotations

from pathlib import Path

from offline_bundle.folder import hash_folder
from offline_bundle.keys import Signer
from offline_bundle.manifest import ModelManifest
from offline_bundle.model_signature import SIGNATURE_NAME, sign_digests


def sign_model(folder: Path, signer: Signer) -> bytes:
    """Give the content of `model.sig` for a folder as it lies."""
    return sign_digests(folder.resolve().name, hash_folder(folder, skip=frozenset({SIGNATURE_NAME})), signer)


def differing_files(manifest: ModelManifest, folder: Path) -> list[str]:
    """Name each file of a folder that is changed, missing or not signed."""
    found = hash_folder(folder, skip=frozenset({SIGNATURE_NAME}))
    return sorted(name for name in manifest.files.keys() | found.keys() if manifest.files.get(name) != found.get(name))
