"""The names of what computes an answer, for its record: a digest over the engine's own source, and the processor."""

from __future__ import annotations

import hashlib
import platform
import re
from pathlib import Path

CPU_TABLE = Path("/proc/cpuinfo")
SOURCE_SUFFIXES = frozenset({".py", ".c", ".h"})


def engine_build(package: Path = Path(__file__).parent) -> str:
    """Give 64 hexadecimal digits over the names and bytes of every source file of the package.

    Two installations with equal digests run the same engine; anyone with the source can compute it again.
    """
    digest = hashlib.sha256()
    sources = [path for path in package.rglob("*") if path.suffix in SOURCE_SUFFIXES and path.is_file()]
    for path in sorted(sources, key=lambda path: path.relative_to(package).as_posix()):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def processor_name(instruction_set: str, cpu_table: Path = CPU_TABLE) -> str:
    """Name the processor as far as it decides how sums are ordered and rounded.

    Args:
        instruction_set: what torch's kernels use of it.
        cpu_table: Linux's list of processors; where there is none, machine and instruction set must do.
    """
    found = re.search(r"^model name\s*:\s*(.+)$", cpu_table.read_text(), re.MULTILINE) if cpu_table.exists() else None
    return " ".join((platform.machine(), instruction_set, found[1].strip() if found else "unnamed"))
