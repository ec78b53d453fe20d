"""Run a command beside a PostgreSQL server of its own, on a disk: a benchmark's, where memory would flatter it.

    python with_postgres.py FOLDER COMMAND...

`CLOISTER_BENCH_POSTGRES` names the server to the command; without a server's binaries it runs without one, and says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from real_postgres import PostgresServer, binaries


def main(folder: Path, command: list[str]) -> int:
    """Return the command's status."""
    found = binaries()
    if not found:
        print("no PostgreSQL server is installed: SQLite alone is measured", file=sys.stderr)
        return subprocess.run(command, check=False).returncode
    server = PostgresServer(found[0], folder)
    try:
        environment = {**os.environ, "CLOISTER_BENCH_POSTGRES": server.url("postgres", "postgres")}
        return subprocess.run(command, check=False, env=environment).returncode
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
