"""Fixtures and laws of the whole suite: no way out of the machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the long lanes ask for more."""
    parser.addoption("--crash-rounds", type=int, default=50, help="how often the appliance is killed under load")


def pytest_sessionstart() -> None:
    """Without the guard the suite would prove less than it says: refuse to run."""
    if "sitecustomize" not in sys.modules or not hasattr(sys.modules["sitecustomize"], "OutboundSocketError"):
        pytest.exit("run the suite by `make test` (or with PYTHONPATH=tests/guard): the socket guard is missing", 4)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the working tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """Material beside the repository that some oracles want; absent on most machines."""
    if not SHARED.is_dir():
        pytest.skip("the shared material is not beside this repository")
    return SHARED
