"""An auditor's laptop needs no database to verify an exported log: the pure half is loaded without one."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

DATABASES = ("sqlalchemy", "alembic", "sqlite3")


def pure_modules() -> list[str]:
    """The modules that the import contract holds to this law."""
    contracts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["tool"]["importlinter"]
    [contract] = [one for one in contracts["contracts"] if one["name"].startswith("the pure half of the log")]
    assert set(contract["forbidden_modules"]) == set(DATABASES)
    return contract["source_modules"]


def loaded_databases(*modules: str) -> str:
    """Import them in an interpreter of their own; say which database packages came along."""
    program = f"import sys, {', '.join(modules)}\nprint([name for name in {DATABASES} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("module", ["audit.verification.pack", "audit.proof", "audit.batch"])
def test_what_an_auditor_runs_loads_no_database(module: str) -> None:
    """Each by itself, in a fresh interpreter."""
    assert loaded_databases(module) == "[]"


def test_no_module_of_the_pure_half_loads_a_database() -> None:
    """All that the contract names; and the other half does load one, so the question is not idle."""
    assert loaded_databases(*pure_modules()) == "[]"
    assert "sqlalchemy" in loaded_databases("audit.store")


def test_every_module_that_calls_itself_pure_is_held_to_it(repository: Path) -> None:
    """Whose docstring begins a paragraph with `Pure` is in the contract."""
    promised = {
        ".".join(path.relative_to(repository).with_suffix("").parts)
        for path in (repository / "audit").rglob("*.py")
        if any(line.startswith("Pure") for line in path.read_text().split('"""')[1].splitlines())
    } - {"audit.__init__"}
    assert len(promised) > 10
    assert promised <= set(pure_modules())
