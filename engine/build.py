"""The name of this very engine: a digest over its own source, so that a record says what computed an answer."""

from __future__ import annotations

import hashlib
from pathlib import Path

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
