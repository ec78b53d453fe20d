"""Seeded keys, a tiny model folder, and the roots that trust them."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from offline_bundle.keys import SigningKey

NOW = datetime(2030, 1, 31, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def now() -> datetime:
    """The moment at which these tests take place."""
    return NOW


@pytest.fixture(scope="session")
def make_key() -> Callable[[str], SigningKey]:
    """A key that depends on nothing but its holder's name."""
    return lambda holder: SigningKey.generate(random.Random(holder).randbytes)


@pytest.fixture
def signer(make_key: Callable[[str], SigningKey]) -> SigningKey:
    """The model signer."""
    return make_key("model-signer")


@pytest.fixture
def stranger(make_key: Callable[[str], SigningKey]) -> SigningKey:
    """A key that nobody trusts."""
    return make_key("stranger")


@pytest.fixture
def golden() -> Path:
    """What the released tool made."""
    return Path(__file__).parent / "golden"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model folder that a test may spoil."""
    root = tmp_path / "tiny"
    for name, content in {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "tokenizer.json": b"[]",
        "a.txt": b"1",
        "a/b.txt": b"2",
        "a-b/c.txt": b"3",
        ".hidden": b"4",
        "empty": b"",
        "__pycache__/x.bin": b"5",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root
