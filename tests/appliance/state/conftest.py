"""A tiny starter, a seeded source of randomness, and a state that a test may spoil."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.state.development import Provisioned, provision_development
from appliance.state.layout import StateLayout

NOW = datetime(2030, 1, 31, 12, 0, 0, tzinfo=UTC)
STARTER = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"[]",
    "evaluation.json": b'{"exact": 1}',
    "LICENSE": b"Apache",
    "sub/notes.txt": b"",
}

Provision = Callable[..., Provisioned]


@pytest.fixture
def now() -> datetime:
    """The moment at which these tests take place."""
    return NOW


@pytest.fixture
def starter(tmp_path: Path) -> Path:
    """The unsigned model of the repository."""
    root = tmp_path / "starter-source"
    for name, content in STARTER.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.fixture
def layout(tmp_path: Path) -> StateLayout:
    """Where the state will be."""
    return StateLayout(tmp_path / "var")


@pytest.fixture
def provision(layout: StateLayout, starter: Path) -> Provision:
    """Provision as `make serve` does, from a seed."""
    source = random.Random(7)

    def provision(*, at: datetime = NOW, **arguments: object) -> Provisioned:
        return provision_development(layout, starter, at, source.randbytes, **arguments)

    return provision


@pytest.fixture(scope="session")
def made_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One state and its starter, made once; copied by whoever spoils it."""
    root = tmp_path_factory.mktemp("made")
    for name, content in STARTER.items():
        (root / "starter-source" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "starter-source" / name).write_bytes(content)
    provision_development(StateLayout(root / "var"), root / "starter-source", NOW, random.Random(7).randbytes)
    return root


@pytest.fixture
def state(made_state: Path, layout: StateLayout, starter: Path) -> StateLayout:
    """A copy of the made state at this test's own place."""
    assert starter.is_dir()
    shutil.copytree(made_state / "var", layout.root, copy_function=shutil.copy2)
    return layout
