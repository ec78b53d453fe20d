"""A disk that fails at the call one names, and the trace of everything that was asked of it.

`FaultyDisk` compiles the library of `faulty_disk.c`, starts the process that lives on it, and gives for each life its
trace: creations, writes with their data, truncations, flushes, and between them the marks of what was acknowledged.
"""

from __future__ import annotations

import enum
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_HEAD = struct.Struct("=IIQQii")


class Op(enum.Enum):
    """What was asked of the disk."""

    CREATE = 1
    LINK = 2
    UNLINK = 3
    WRITE = 4
    TRUNCATE = 5
    SYNC = 6
    MARK = 7


class How(enum.IntEnum):
    """What a failing call does before it says so."""

    NOT_DONE = 0
    DONE = 1
    SHORT = 2
    """Half of it, and no error: the next call goes on."""


@dataclass(frozen=True, slots=True)
class Record:
    """One call, or one mark."""

    op: Op
    name: str
    """Path of the file; two for a link, apart by a newline; a mark's text."""
    offset: int
    data: bytes
    failed_with: int
    was_done: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """Which call fails, and how."""

    nth: int
    error: int
    how: How = How.NOT_DONE
    stays: bool = False
    """So does every later one."""


@dataclass(frozen=True, slots=True)
class Life:
    """What happened until the process ended."""

    exit_status: int
    trace: tuple[Record, ...]

    @property
    def calls(self) -> list[Record]:
        """The calls alone, in the order in which they are counted."""
        return [record for record in self.trace if record.op is not Op.MARK]

    @property
    def marks(self) -> list[str]:
        """The marks alone."""
        return [record.name for record in self.trace if record.op is Op.MARK]

    @property
    def receipts(self) -> list[str]:
        """`index leaf_hash subject` of everything acknowledged."""
        return receipts_in(self.trace)


def receipts_in(trace: Sequence[Record]) -> list[str]:
    """Return what a trace acknowledges."""
    return [r.name.removeprefix("receipt ") for r in trace if r.op is Op.MARK and r.name.startswith("receipt ")]


class FaultyDisk:
    """One process that lives as often as it is asked to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @classmethod
    @contextmanager
    def started(cls, folder: Path) -> Iterator[Self]:
        """Compile into a folder, start, and end with the block; `NoCompiler` where there is none."""
        support = Path(__file__).parent
        library = folder / "faulty_disk.so"
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise NoCompilerError("no C compiler is installed")
        options = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
        subprocess.run([compiler, *options, "-o", library, support / "faulty_disk.c", "-ldl", "-lpthread"], check=True)
        path = os.pathsep.join([str(support.parents[1]), str(support), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": path}
        command = [sys.executable, str(support / "faulty_disk_child.py")]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
        with subprocess.Popen(command, **pipes) as process:
            try:
                yield cls(process)
            finally:
                process.kill()

    def live(self, folder: Path, fault: Fault | None = None, synchronous: str = "") -> Life:
        """Live once in an empty folder."""
        trace = folder.with_name(folder.name + ".trace")
        nth, error, how, stays = (fault.nth, fault.error, fault.how, fault.stays) if fault else (-1, 0, 0, False)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(folder, trace, nth, error, int(how), int(stays), synchronous, file=self._process.stdin, flush=True)
        status = int(self._process.stdout.readline())
        life = Life(status, tuple(_records(trace.read_bytes())))
        trace.unlink()
        return life


class NoCompilerError(Exception):
    """Nothing here can compile the library."""


def _records(data: bytes) -> Iterator[Record]:
    at = 0
    while at < len(data):
        op, name_len, offset, data_len, failed_with, was_done = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        name = data[at : at + name_len].decode()
        at += name_len
        yield Record(Op(op), name, offset, data[at : at + data_len], failed_with, bool(was_done))
        at += data_len
