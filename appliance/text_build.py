"""The name of what turns text into tokens and back: a digest, so that a record says by what a prompt was rendered."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

PACKAGE = Path(__file__).parent
SOURCE_FILES, SOURCE_FOLDER = ("choice_text.py", "prompting.py"), "text"
"""What beside this file decides which tokens a prompt becomes, and which text an answer."""
LIBRARIES = ("jinja2", "tokenizers")


def text_build(package: Path = PACKAGE) -> str:
    """Give 64 hexadecimal digits over the sources and the versions of the libraries under them."""
    digest = hashlib.sha256()
    for library in LIBRARIES:
        digest.update(f"{library}=={version(library)}\0".encode())
    files = [package / name for name in SOURCE_FILES]
    files += (package / SOURCE_FOLDER).rglob("*.py")
    for path in sorted(files, key=lambda path: path.relative_to(package).as_posix()):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
