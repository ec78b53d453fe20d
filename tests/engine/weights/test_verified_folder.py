"""Bytes come out only if they are the expected ones, and only from files that were named."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from engine.config import FileDigest
from engine.weights import verified_folder
from engine.weights.errors import DigestMismatch, FileRefused
from engine.weights.verified_folder import VerifiedFolder


def digest(name: str, data: bytes) -> FileDigest:
    """Expect these bytes."""
    return FileDigest(name, hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("size", [0, 1, 4095, 4097, 3 * 64 + 1])
def test_verified_bytes_are_the_files_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Files below, at and beyond the chunk border come out whole."""
    monkeypatch.setattr(verified_folder, "READ_CHUNK_BYTES", 64)
    data = os.urandom(size)
    (tmp_path / "a.bin").write_bytes(data)
    file = VerifiedFolder(str(tmp_path), [digest("a.bin", data)]).read("a.bin")
    assert bytes(file.view) == data
    assert file.size_bytes == size


@pytest.mark.parametrize("place", [0, 63, 64, 200, 320])
def test_one_changed_bit_stops_the_read_and_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """A flipped bit in any chunk is a mismatch that carries both digests."""
    monkeypatch.setattr(verified_folder, "READ_CHUNK_BYTES", 64)
    data = bytes(range(256)) + bytes(65)
    changed = bytearray(data)
    changed[place] ^= 1
    (tmp_path / "w.bin").write_bytes(changed)
    with pytest.raises(DigestMismatch, match=r"w\.bin") as caught:
        VerifiedFolder(str(tmp_path), [digest("w.bin", data)]).read("w.bin")
    assert caught.value.file == "w.bin"
    assert caught.value.expected == digest("w.bin", data).sha256
    assert caught.value.actual == hashlib.sha256(changed).hexdigest()
    assert caught.value.hint


@pytest.mark.parametrize("change", [b"x", b""])
def test_a_longer_or_shorter_file_is_a_mismatch(tmp_path: Path, change: bytes) -> None:
    """Length is covered by the digest."""
    (tmp_path / "w.bin").write_bytes(b"weights"[: None if change else -1] + change)
    with pytest.raises(DigestMismatch):
        VerifiedFolder(str(tmp_path), [digest("w.bin", b"weights")]).read("w.bin")


def test_a_file_that_is_not_named_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal comes before any system call."""
    (tmp_path / "a").write_bytes(b"a")

    def no_open(*_: object, **__: object) -> int:
        pytest.fail("a file was opened")

    folder = VerifiedFolder(str(tmp_path), [])
    monkeypatch.setattr(verified_folder.os, "open", no_open)
    with pytest.raises(FileRefused, match="does not name it"):
        folder.read("a")


def test_each_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was hashed cannot be swapped for what is used, because nothing is opened a second time."""
    (tmp_path / "a").write_bytes(b"a")
    opened: list[str] = []
    real_open = os.open

    def counting_open(path: str, *arguments: object, **options: object) -> int:
        opened.append(path)
        return real_open(path, *arguments, **options)

    monkeypatch.setattr(verified_folder.os, "open", counting_open)
    VerifiedFolder(str(tmp_path), [digest("a", b"a")]).read("a")
    assert opened.count("a") == 1


def test_a_change_on_disk_after_the_read_changes_nothing(tmp_path: Path) -> None:
    """The bytes in use are private memory, not a mapping of the file."""
    (tmp_path / "a").write_bytes(b"before")
    file = VerifiedFolder(str(tmp_path), [digest("a", b"before")]).read("a")
    with (tmp_path / "a").open("r+b") as stream:
        stream.write(b"after!")
    assert bytes(file.view) == b"before"


def test_a_symbolic_link_is_refused_even_to_the_right_bytes(tmp_path: Path) -> None:
    """A link could be turned between two loads; there are none in a served folder."""
    (tmp_path / "real").write_bytes(b"a")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(FileRefused, match="cannot be read"):
        VerifiedFolder(str(tmp_path), [digest("link", b"a")]).read("link")


def test_a_linked_folder_on_the_way_is_refused(tmp_path: Path) -> None:
    """No component below the model folder may be a link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"a")
    (tmp_path / "link").symlink_to("real", target_is_directory=True)
    with pytest.raises(FileRefused):
        VerifiedFolder(str(tmp_path), [digest("link/a", b"a")]).read("link/a")
    assert VerifiedFolder(str(tmp_path), [digest("real/a", b"a")]).read("real/a").size_bytes == 1


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    """Opening a pipe that nobody writes to must not hang the load."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileRefused, match="not a regular file"):
        VerifiedFolder(str(tmp_path), [digest("pipe", b"")]).read("pipe")


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "", ".", "a/../b", "a//b", "./a", "a\0b"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    """Names are plain relative paths, whoever signed them."""
    with pytest.raises(FileRefused, match="leaves the model folder"):
        VerifiedFolder(str(tmp_path), [digest(name, b"")])


@pytest.mark.parametrize("sha256", ["", "0" * 63, "A" * 64, "g" * 64, "0" * 65, "0" * 64 + "\n"])
def test_a_malformed_digest_is_refused(tmp_path: Path, sha256: str) -> None:
    """A digest that can never match is a broken manifest, said at once."""
    with pytest.raises(FileRefused, match="64 lower-case"):
        VerifiedFolder(str(tmp_path), [FileDigest("a", sha256)])


def test_a_file_named_twice_is_refused(tmp_path: Path) -> None:
    """Of two expectations for one file neither can be trusted."""
    with pytest.raises(FileRefused, match="twice"):
        VerifiedFolder(str(tmp_path), [digest("a", b""), digest("a", b"b")])


def test_a_file_over_its_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """The limit is checked on the size, so no memory is taken."""
    (tmp_path / "config.json").write_bytes(b"x" * 100)
    with pytest.raises(FileRefused, match="the limit is 99"):
        VerifiedFolder(str(tmp_path), [digest("config.json", b"x" * 100)]).read("config.json", max_bytes=99)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    """The reason names what the system said."""
    with pytest.raises(FileRefused, match=r"gone: .*No such file"):
        VerifiedFolder(str(tmp_path), [digest("gone", b"")]).read("gone")


def test_of_several_files_the_bad_one_is_named(tmp_path: Path) -> None:
    """Reading beside one another does not blur which file failed."""
    for index in range(6):
        (tmp_path / f"{index}").write_bytes(bytes([index]) * 1000)
    digests = [digest(f"{index}", bytes([index]) * 1000) for index in range(6)]
    names = [file.name for file in digests]
    assert list(VerifiedFolder(str(tmp_path), digests).read_all(names)) == names
    (tmp_path / "4").write_bytes(b"other")
    with pytest.raises(DigestMismatch) as caught:
        VerifiedFolder(str(tmp_path), digests).read_all(names)
    assert caught.value.file == "4"


def test_discarded_bytes_are_gone_and_their_neighbours_are_not(tmp_path: Path) -> None:
    """Only whole pages inside the range are given back."""
    page = verified_folder.mmap.PAGESIZE
    data = b"\x07" * (4 * page)
    (tmp_path / "a").write_bytes(data)
    file = VerifiedFolder(str(tmp_path), [digest("a", data)]).read("a")
    file.unsafe_discard(10, 3 * page - 10)
    assert bytes(file.view[:page]) == data[:page]
    assert bytes(file.view[page : 2 * page]) == bytes(page)
    assert bytes(file.view[2 * page :]) == data[2 * page :]
