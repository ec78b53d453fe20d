from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from audit.siem.file_sink import FileSink
from audit.siem.sink import SinkFailed

LINES = [b"%03d\n" % number for number in range(10)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the copy lies."""
    return tmp_path / "copy.jsonl"


def sink_of(path: Path, max_bytes: int = 2**20, max_files: int = 3) -> FileSink:
    """Give a sink with room for everything, or for little."""
    return FileSink(path, max_bytes=max_bytes, max_files=max_files)


def test_lines_are_flushed_before_it_says_taken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte is there when the disk is told to keep them, and the folder keeps the file's name."""
    synced: list[tuple[str, bytes | None]] = []
    real = os.fsync

    def noting(descriptor: int) -> None:
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        synced.append((name, path.read_bytes() if name == str(path) else None))
        real(descriptor)

    monkeypatch.setattr("audit.siem.file_sink.os.fsync", noting)
    sink = sink_of(path)
    sink.take(LINES[:3])
    sink.close()
    assert (str(path), b"".join(LINES[:3])) in synced
    assert (str(path.parent), None) in synced
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_turns_over_by_size_and_keeps_so_many(path: Path) -> None:
    """No file grows beyond the limit, order goes from the oldest number to the name itself, the oldest falls out."""
    sink = sink_of(path, max_bytes=8, max_files=2)
    for line in LINES:
        sink.take([line])
    sink.close()
    files = [path.with_name("copy.jsonl.2"), path.with_name("copy.jsonl.1"), path]
    assert sorted(path.parent.iterdir()) == sorted(files)
    assert b"".join(file.read_bytes() for file in files) == b"".join(LINES[-6:])
    assert all(file.stat().st_size <= 8 for file in files)


def test_a_batch_larger_than_the_limit_is_taken_whole(path: Path) -> None:
    """At-least-once goes before size."""
    sink = sink_of(path, max_bytes=8, max_files=1)
    sink.take(LINES[:1])
    sink.take(LINES)
    sink.close()
    assert path.read_bytes() == b"".join(LINES)
    assert path.with_name("copy.jsonl.1").read_bytes() == LINES[0]


def test_without_kept_files_a_full_one_is_begun_anew(path: Path) -> None:
    """An operator who keeps none gets none."""
    sink = sink_of(path, max_bytes=8, max_files=0)
    for line in LINES:
        sink.take([line])
    sink.close()
    assert [one.name for one in path.parent.iterdir()] == ["copy.jsonl"]
    assert path.read_bytes() == b"".join(LINES[-2:])


@pytest.mark.parametrize("left", [b"00", b"000\n00", b"0" * 200_000])
def test_the_half_line_of_a_crash_is_cut_off(path: Path, left: bytes) -> None:
    """What a crash left of a line is not glued to the next one; what is longer than any line of ours is not touched."""
    path.write_bytes(left)
    sink = sink_of(path)
    sink.take(LINES[1:2])
    sink.close()
    whole = left if len(left) > 2**17 else left[: left.rfind(b"\n") + 1]
    assert path.read_bytes() == whole + LINES[1]


@pytest.mark.parametrize("place", ["write", "fsync"])
def test_a_full_disk_leaves_no_half_line(path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Whether the write or the flush fails: the file ends where it ended, and the next try goes on there."""
    sink = sink_of(path)
    sink.take(LINES[:2])
    real_write, real_sync, full = os.write, os.fsync, [True]

    def write(descriptor: int, content: bytes) -> int:
        if place == "write" and full:
            if len(content) < 5:
                full.clear()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real_write(descriptor, content[:5])
        return real_write(descriptor, content)

    def fsync(descriptor: int) -> None:
        if place == "fsync" and full:
            full.clear()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real_sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr("audit.siem.file_sink.os.write", write)
        patched.setattr("audit.siem.file_sink.os.fsync", fsync)
        with pytest.raises(SinkFailed, match=str(path)):
            sink.take(LINES[2:4])
    assert path.read_bytes() == b"".join(LINES[:2])
    sink.take(LINES[2:4])
    sink.close()
    assert path.read_bytes() == b"".join(LINES[:4])


def test_a_file_that_was_moved_away_is_begun_anew(path: Path) -> None:
    """Somebody else's rotation: nothing is written into the moved file."""
    sink = sink_of(path)
    sink.take(LINES[:1])
    path.rename(path.with_name("moved"))
    sink.take(LINES[1:2])
    sink.close()
    assert (path.with_name("moved").read_bytes(), path.read_bytes()) == (LINES[0], LINES[1])


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "no folder"])
def test_what_is_no_file_of_ours_is_refused(path: Path, kind: str) -> None:
    """A link leads elsewhere, a pipe may never be read: refused, never waited for."""
    if kind == "link":
        path.symlink_to(path.with_name("elsewhere"))
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = path / "copy"
    with pytest.raises(SinkFailed, match=str(path)):
        sink_of(path).take(LINES)
    assert not path.with_name("elsewhere").exists()
