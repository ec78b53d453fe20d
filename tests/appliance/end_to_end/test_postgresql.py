"""docs/postgresql.md, executed: move the log, serve from the database, lose the database, verify as the auditor."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from live_appliance import REPOSITORY, LiveAppliance, free_port, running_appliance
from real_postgres import OWNER, READER, WRITER, LogDatabase, PostgresServer, binaries

from appliance.audit_trail import PAIRING
from audit.checkpoint import LogVerifier
from audit.location import PostgresLog
from audit.verify import verify_log

pytestmark = pytest.mark.postgres
ASKED = {"model": "starter", "prompt": "The pump", "max_tokens": 2}
COMMAND = str(Path(sys.executable).parent / "cloister")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that the tests may stop."""
    found = binaries()
    if not found:
        pytest.skip("no PostgreSQL server is installed")
    running = PostgresServer(found[0])
    yield running
    running.close()


def cloister(state_dir: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command on a state."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLOISTER_")}
    environment |= {"CLOISTER_STATE_DIR": str(state_dir), **settings}
    return subprocess.run(
        [COMMAND, *arguments], env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def moved(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LogDatabase, dict[str, str]]:
    """A state that served from a file, and whose log was then moved by the page's commands."""
    state_dir = tmp_path_factory.mktemp("moved") / "var"
    with running_appliance(state_dir) as appliance, appliance.client("developer") as developer:
        assert developer.post("/v1/completions", json=ASKED).status_code == 200
    database = server.empty_database()
    owner = ("--owner", database.owner.conninfo, "--writer", WRITER, "--reader", READER)
    said = cloister(state_dir, "audit", "move-to-postgresql", *owner)
    assert said.returncode == 0, said.stderr
    settings = {
        "CLOISTER_LOG_WRITER_URL": database.writer.conninfo,
        "CLOISTER_LOG_READER_URL": database.reader.conninfo,
    }
    return state_dir, database, settings


def assert_verifies(state_dir: Path, database: LogDatabase) -> int:
    """As the auditor does; return the number of entries."""
    verifier = LogVerifier.from_vkey((state_dir / "log" / "verifier.vkey").read_text())
    report = verify_log(database.reader, [verifier], PAIRING)
    assert report.findings == ()
    return report.num_leaves


def ask(appliance: LiveAppliance) -> httpx.Response:
    """One short question."""
    with appliance.client("developer") as developer:
        return developer.post("/v1/completions", json=ASKED)


def test_the_log_goes_on_where_it_was_moved_to(moved: tuple[Path, LogDatabase, dict[str, str]]):
    """Entries from before and after are one log, and every verb finds it there."""
    state_dir, database, settings = moved
    before = assert_verifies(state_dir, database)
    with running_appliance(state_dir, **settings) as appliance:
        receipt = ask(appliance).headers["x-cloister-receipt"]
        with appliance.client("auditor") as auditor:
            assert auditor.get("/audit/entries/0").json()["entry"]["kind"] == "appliance:started"
        assert int(receipt.partition(":")[0]) >= before
    assert assert_verifies(state_dir, database) > before + 4
    verified = cloister(state_dir, "audit", "verify", **settings)
    assert verified.returncode == 0, verified.stderr
    assert "VERIFIED" in verified.stdout
    by_url = cloister(state_dir, "audit", "verify", database.reader.conninfo)
    assert "VERIFIED" in by_url.stdout
    exported = cloister(state_dir, "audit", "export", str(state_dir.parent / "copy"), **settings)
    assert exported.returncode == 0, exported.stderr


def test_while_the_database_is_away_nothing_is_admitted_and_nothing_is_lost(
    server: PostgresServer, moved: tuple[Path, LogDatabase, dict[str, str]]
):
    """Who waits gets an answer when it is back; newcomers are told at once; one log in the end."""
    state_dir, database, settings = moved
    with running_appliance(state_dir, **settings) as appliance:
        assert ask(appliance).status_code == 200
        server.stop("immediate")
        waiting: list[httpx.Response] = []
        waiter = threading.Thread(target=lambda: waiting.append(ask(appliance)))
        waiter.start()
        while (ready := httpx.get(f"{appliance.url}/readyz", trust_env=False)).status_code == 200:
            assert waiter.is_alive()
        assert [obstacle["code"] for obstacle in ready.json()["obstacles"]] == ["log_away"]
        refused = ask(appliance)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "log_away")
        server.start()
        waiter.join(60)
        assert [response.status_code for response in waiting] == [200]
        assert ask(appliance).status_code == 200
        assert httpx.get(f"{appliance.url}/readyz", trust_env=False).status_code == 200
    assert_verifies(state_dir, database)


def test_a_moved_log_is_never_begun_anew(moved: tuple[Path, LogDatabase, dict[str, str]], server: PostgresServer):
    """Without the settings, with half of them, or with another database the appliance does not start."""
    state_dir, _, settings = moved
    other = server.empty_database()
    for wrong, said in (
        ({}, "was moved to"),
        ({"CLOISTER_LOG_WRITER_URL": settings["CLOISTER_LOG_WRITER_URL"]}, "together or not at all"),
        (
            {"CLOISTER_LOG_WRITER_URL": other.writer.conninfo, "CLOISTER_LOG_READER_URL": other.reader.conninfo},
            "was moved to",
        ),
    ):
        refused = cloister(state_dir, "serve", "--development", CLOISTER_PORT=str(free_port()), **wrong)
        assert refused.returncode != 0
        assert said in refused.stderr
    assert list((state_dir / "log").glob("audit.db")) == []


def test_the_page_says_what_these_tests_do():
    """The commands and the SQL of docs/postgresql.md are those that were run here."""
    page = (REPOSITORY / "docs" / "postgresql.md").read_text()
    assert f"--writer {WRITER} --reader {READER}" in page
    for role in (OWNER, WRITER, READER):
        assert re.search(rf"CREATE ROLE {role} LOGIN", page)
    for url in re.findall(r"postgresql://[^\s'\"`]+", page):
        PostgresLog(url)
