"""Starts that must not happen: each is one line on standard error, a named culprit, an exit code, and no traceback.

One state is provisioned once; every case works on a copy of it, from a starter folder that nobody else changes.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live_appliance import REPOSITORY, LiveAppliance, free_port, running_appliance, start_appliance

from appliance.state.layout import StateLayout

START_DEADLINE_S = 120


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter model as it is now."""
    return shutil.copytree(REPOSITORY / "models/starter/weights", tmp_path_factory.mktemp("starter") / "weights")


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory: pytest.TempPathFactory, starter: Path) -> Path:
    """A state that has served and was stopped in order."""
    state_dir = tmp_path_factory.mktemp("provisioned") / "state"
    assert start_appliance(state_dir, CLOISTER_STARTER_DIR=str(starter)).stop() == 0
    return state_dir


@pytest.fixture
def state(tmp_path: Path, provisioned: Path) -> StateLayout:
    """A copy to spoil; modes are kept."""
    return StateLayout(shutil.copytree(provisioned, tmp_path / "state"))


@pytest.fixture(scope="module")
def neighbour(tmp_path_factory: pytest.TempPathFactory, starter: Path) -> Iterator[LiveAppliance]:
    """An appliance that holds its port and its state."""
    state_dir = tmp_path_factory.mktemp("neighbour") / "state"
    with running_appliance(state_dir, CLOISTER_STARTER_DIR=str(starter)) as appliance:
        yield appliance


def _start(state_dir: Path, starter: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CLOISTER_")},
        "CLOISTER_PORT": str(free_port()),
        "CLOISTER_STATE_DIR": str(state_dir),
        "CLOISTER_STARTER_DIR": str(starter),
        "CLOISTER_ENGINE_THREADS": "1",
        "CLOISTER_LOG_LEVEL": "warning",
        **settings,
    }
    command = [Path(sys.executable).parent / "cloister", "serve", "--development"]
    return subprocess.run(
        command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=START_DEADLINE_S, check=False
    )


def _refusal(start: subprocess.CompletedProcess[str], exit_code: int | None = None) -> str:
    """Give the one message of a start that was refused."""
    assert start.returncode not in (0, None), start.stdout
    assert start.returncode > 0, f"killed by signal {-start.returncode}"
    assert "Traceback" not in start.stderr, start.stderr
    messages = [line for line in start.stderr.splitlines() if line.strip()]
    assert len(messages) == 1, start.stderr
    assert messages[0].startswith("cloister: ")
    assert "Serving" not in start.stdout
    if exit_code is not None:
        assert start.returncode == exit_code, messages[0]
    return messages[0]


def _flip(path: Path, position: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if position is None else position] ^= 1
    path.write_bytes(content)


def _only(folder: Path, pattern: str) -> Path:
    return min(folder.glob(pattern))


def _flip_newest_checkpoint(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        (table,) = (name for name in tables if "checkpoint" in name)
        (note,) = connection.execute(f"SELECT note FROM {table} ORDER BY size DESC LIMIT 1").fetchone()
    connection.close()
    content = path.read_bytes()
    line = (note if isinstance(note, bytes) else note.encode()).splitlines()[2]
    _flip(path, content.rindex(line))


Spoil = Callable[[StateLayout], Path]
"""Spoils one thing and gives the path that the message must name."""


def _flipping(choose: Spoil, position: int | None = None) -> Spoil:
    def spoil(state: StateLayout) -> Path:
        path = choose(state)
        _flip(path, position)
        return path

    return spoil


def _extra_file(state: StateLayout) -> Path:
    path = state.model("starter") / "modeling_starter.py"
    path.write_text("raise SystemExit\n")
    path.chmod(0o600)
    return path


def _missing(choose: Spoil) -> Spoil:
    def spoil(state: StateLayout) -> Path:
        path = choose(state)
        path.unlink()
        return path

    return spoil


def _linked_file(state: StateLayout) -> Path:
    path = state.model("starter") / "config.json"
    path.rename(state.root.parent / "elsewhere.json")
    path.symlink_to(state.root.parent / "elsewhere.json")
    return path


def _broken_log(state: StateLayout) -> Path:
    _flip_newest_checkpoint(state.audit_db)
    return state.audit_db


def _wrong_pin(state: StateLayout) -> Path:
    _flip(state.trust_pin, 0)
    return state.trust_root(1)  # whichever of the two is wrong, this is what must not be trusted


def _wrong_policy_signature(state: StateLayout) -> Path:
    _flip(_only(state.policy_signatures(1), "*.json"))
    return state.policy_signatures(1).parent  # one signature is bad: the bundle is short of them


def _wrong_approval(state: StateLayout) -> Path:
    _flip(_only(state.approval("starter", 1), "*.json"))
    return state.approval("starter", 1)


SPOILED: dict[str, Spoil] = {
    "trust root": _flipping(lambda state: state.trust_root(1)),
    "pinned fingerprint": _wrong_pin,
    "policy file": _flipping(lambda state: _only(state.policy_files(1), "**/*.cedar")),
    "policy signature": _wrong_policy_signature,
    "model.sig": _flipping(lambda state: state.model("starter") / "model.sig"),
    "weights": _flipping(lambda state: state.model("starter") / "model.safetensors"),
    "tokenizer.json": _flipping(lambda state: state.model("starter") / "tokenizer.json"),
    "config.json": _flipping(lambda state: state.model("starter") / "config.json"),
    "approval": _wrong_approval,
    "keys.db": _flipping(lambda state: state.keys_db, 0),
    "subject_keys.db": _flipping(lambda state: state.subject_keys_db, 0),
    "audit.db, its head": _flipping(lambda state: state.audit_db, 0),
    "audit.db, its newest checkpoint": _broken_log,
    "log key": _flipping(lambda state: state.log_signing_key),
    "log's public key": _flipping(lambda state: state.log_vkey),
    "pepper": _flipping(lambda state: state.pepper),
    "key-encryption key": _flipping(lambda state: state.kek),
    "development keys": _flipping(lambda state: state.dev_keys),
    "extra file in the model folder": _extra_file,
    "missing tokenizer": _missing(lambda state: state.model("starter") / "tokenizer.json"),
    "missing log": _missing(lambda state: state.audit_db),
    "link in the model folder": _linked_file,
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_changed_state_is_not_served(state: StateLayout, starter: Path, what: str):
    """One flipped bit, one file too many or too few, and the start is refused by the file's name."""
    culprit = SPOILED[what](state)
    message = _refusal(_start(state.root, starter))
    assert culprit.name in message, message


@pytest.mark.parametrize(
    ("choose", "line"),
    [
        (lambda state: state.root, "chmod 700 {}"),
        (lambda state: state.secrets, "chmod 700 {}"),
        (lambda state: state.pepper, "chmod 600 {}"),
        (lambda state: state.audit_db, "chmod 600 {}"),
    ],
)
def test_a_state_that_others_can_read_is_refused_with_the_line_that_closes_it(
    state: StateLayout, starter: Path, choose: Spoil, line: str
):
    """The message holds the very command, and after it the start succeeds."""
    path = choose(state)
    path.chmod(0o755)
    message = _refusal(_start(state.root, starter))
    assert line.format(path) in message


def test_the_untouched_copy_starts(state: StateLayout, starter: Path):
    """Without it every refusal above could have another cause: a copy is served, with the keys of its original."""
    with running_appliance(state.root, CLOISTER_STARTER_DIR=str(starter)) as appliance:
        with appliance.client("developer") as developer:
            assert developer.get("/v1/models").status_code == 200
        assert "keys were made" not in appliance.banner


def test_a_busy_port_is_refused_before_anything_is_opened(neighbour: LiveAppliance, starter: Path, tmp_path: Path):
    """Exit code 1 and the setting to change; no state is made for a server that cannot serve."""
    port = neighbour.url.rsplit(":", 1)[1]
    message = _refusal(_start(tmp_path / "state", starter, CLOISTER_PORT=port), exit_code=1)
    assert "CLOISTER_PORT" in message
    assert port in message
    assert not (tmp_path / "state").exists()


def test_a_state_in_use_is_refused(neighbour: LiveAppliance, starter: Path):
    """Two writers would fork the log: exit code 1, and the first one serves on."""
    message = _refusal(_start(neighbour.state_dir, starter), exit_code=1)
    assert "another process" in message
    assert str(neighbour.state_dir) in message
    with neighbour.client("developer") as developer:
        assert developer.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLOISTER_PROT", "8600"),
        ("CLOISTER_PORT", "eighty"),
        ("CLOISTER_PORT", "70000"),
        ("CLOISTER_HOST", "0.0.0.0"),
        ("CLOISTER_DTYPE", "int3"),
        ("CLOISTER_ALLOWED_HOSTS", "not json"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_wrong_usage(tmp_path: Path, starter: Path, name: str, value: str):
    """An unknown name or an unusable value: exit code 2, the name in the message, and nothing was made."""
    message = _refusal(_start(tmp_path / "state", starter, **{name: value}), exit_code=2)
    assert name in message
    assert not (tmp_path / "state").exists()


def test_a_folder_that_is_no_state_is_left_alone(tmp_path: Path, starter: Path):
    """Pointing at somebody's documents makes no state there."""
    (tmp_path / "documents").mkdir(mode=0o700)
    (tmp_path / "documents" / "letter.txt").write_text("Dear")
    message = _refusal(_start(tmp_path / "documents", starter), exit_code=1)
    assert "documents" in message
    assert [path.name for path in (tmp_path / "documents").iterdir()] == ["letter.txt"]
