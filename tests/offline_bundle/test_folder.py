"""A folder is its plain files; whatever leads elsewhere is refused by name."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_bundle.errors import FolderRefused
from offline_bundle.folder import MAX_DEPTH, copy_file, hash_file, hash_folder, list_folder, name_fault, read_file


def test_every_file_is_listed_and_hashed(folder: Path) -> None:
    """Dotfiles, caches and empty files count; names come sorted by code point."""
    expected = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert list(list_folder(folder)) == sorted(expected)
    assert dict(hash_folder(folder)) == expected
    assert dict(hash_folder(folder, num_threads=3)) == expected
    assert set(hash_folder(folder, skip=frozenset({"a.txt"}))) == set(expected) - {"a.txt"}


def test_empty_folders_are_not_seen(folder: Path) -> None:
    """A folder without a file holds nothing that could be loaded."""
    before = list_folder(folder)
    (folder / "nothing" / "below").mkdir(parents=True)
    assert list_folder(folder) == before


def _link_to_file(root: Path) -> str:
    (root / "link").symlink_to("config.json")
    return "link"


def _link_outside(root: Path) -> str:
    (root / "a" / "link").symlink_to("/etc/passwd")
    return "a/link"


def _link_to_folder(root: Path) -> str:
    (root / "folder").symlink_to("a")
    return "folder"


def _dangling_link(root: Path) -> str:
    (root / "dangling").symlink_to("nowhere")
    return "dangling"


def _pipe(root: Path) -> str:
    os.mkfifo(root / "pipe")
    return "pipe"


def _socket(root: Path) -> str:
    here = Path.cwd()
    os.chdir(root)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("sock")
    finally:
        os.chdir(here)
    return "sock"


def _control_character(root: Path) -> str:
    (root / "a\nb").write_bytes(b"")
    return "a\nb"


def _backslash(root: Path) -> str:
    (root / "a\\b").write_bytes(b"")
    return "a\\b"


def _not_utf8(root: Path) -> str:
    Path(os.fsdecode(os.fsencode(root) + b"/\xff")).write_bytes(b"")
    return "\udcff"


@pytest.mark.parametrize(
    "plant",
    [
        _link_to_file,
        _link_outside,
        _link_to_folder,
        _dangling_link,
        _pipe,
        _socket,
        _control_character,
        _backslash,
        _not_utf8,
    ],
)
def test_anything_but_a_plainly_named_plain_file_is_refused_by_name(folder: Path, plant: Callable[[Path], str]) -> None:
    """Neither listing nor hashing follows, waits or skips."""
    name = plant(folder)
    for read in (list_folder, hash_folder):
        with pytest.raises(FolderRefused) as refusal:
            read(folder)
        assert refusal.value.file == name
        assert refusal.value.hint


@pytest.mark.parametrize("read", [hash_file, lambda folder, name: read_file(folder, name, max_bytes=100)])
def test_a_single_file_is_read_without_following_links(folder: Path, read: Callable[[Path, str], object]) -> None:
    """A link as the file, or as a folder on the way to it, is refused; so is a pipe, without waiting for a writer."""
    (folder / "link").symlink_to("config.json")
    (folder / "folder").symlink_to("a")
    os.mkfifo(folder / "pipe")
    for name in ("link", "folder/b.txt", "pipe", "missing", "a", "../tiny/config.json", "/etc/passwd", "a//b.txt", ""):
        with pytest.raises(FolderRefused) as refusal:
            read(folder, name)
        assert refusal.value.hint


def test_file_larger_than_allowed_is_refused_unread(folder: Path) -> None:
    """The limit is exact."""
    assert read_file(folder, "model.safetensors", max_bytes=7) == b"weights"
    with pytest.raises(FolderRefused, match="at most 6"):
        read_file(folder, "model.safetensors", max_bytes=6)


def test_file_that_changes_while_it_is_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A digest of half old, half new bytes is the digest of nothing."""
    target = folder / "model.safetensors"
    real = os.fstat
    calls = []

    def fstat(descriptor: int) -> os.stat_result:
        calls.append(descriptor)
        if len(calls) == 2:
            target.write_bytes(b"longer than before")
        return real(descriptor)

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(FolderRefused, match="changed while it was read"):
        hash_file(folder, "model.safetensors")


def test_file_that_shrinks_while_it_is_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer bytes than announced never pass for the whole file."""
    target = folder / "model.safetensors"
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        target.write_bytes(b"w")
        return status

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(FolderRefused, match="changed while it was read"):
        read_file(folder, "model.safetensors", max_bytes=100)


def test_copy_returns_the_digest_of_what_was_copied_and_replaces_nothing(folder: Path, tmp_path: Path) -> None:
    """What is signed after a copy are the copied bytes; the copy is private."""
    target = tmp_path / "copy"
    assert copy_file(folder, "a/b.txt", target) == hashlib.sha256(b"2").hexdigest()
    assert target.read_bytes() == b"2"
    assert target.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        copy_file(folder, "a/b.txt", target)


def test_a_folder_that_is_not_there_is_a_typed_refusal(tmp_path: Path) -> None:
    """The path stands in the message."""
    with pytest.raises(FolderRefused, match="nowhere"):
        list_folder(tmp_path / "nowhere")


@given(name=st.text(max_size=40))
def test_an_accepted_name_stays_below_the_folder(name: str) -> None:
    """Whatever is accepted joins to a path inside, in one spelling."""
    if name_fault(name):
        return
    joined = os.path.normpath(os.path.join("/folder", name))  # noqa: PTH118 - the purely textual join is the point
    assert joined == f"/folder/{name}"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../x",
        "a/../b",
        "a/./b",
        "./a",
        "a//b",
        "a/",
        "a\\b",
        "C:\\x",
        "a\0b",
        "a\nb",
        "\x7f",
        "\ud800",
        "x" * 1025,
        "/".join("a" * (MAX_DEPTH + 1)),
    ],
    ids=ascii,
)
def test_names_that_could_lead_elsewhere_are_refused(name: str) -> None:
    """Each classic way out."""
    assert name_fault(name)
