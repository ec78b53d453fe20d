from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from evidence_packs import SIGNER, build_mixed_log, make_pack

NUM_LEAVES = 300


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log of 300 entries, its sealed pack and its key; never to be changed."""
    folder = tmp_path_factory.mktemp("evidence")
    build_mixed_log(folder / "audit.db", NUM_LEAVES)
    (folder / "auditor.vkey").write_text(SIGNER.verifier.vkey + "\n")
    make_pack(folder / "audit.db", folder / "pack")
    return folder


@pytest.fixture
def pack(honest: Path, tmp_path: Path) -> Path:
    """A copy of the pack to tamper with."""
    return Path(shutil.copytree(honest / "pack", tmp_path / "pack"))
