"""A folder on a medium: what it holds, what it refuses, and what the operator reads when it is not there."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from anchored_logs import Tree, mounted, numbered
from audit_log_builder import OTHER_SIGNER, SIGNER

from audit.anchoring.directory import MARKER, NEWEST, DirectorySink
from audit.anchoring.evidence import read_anchors
from audit.anchoring.head import file_name_of
from audit.errors import AnchorAhead, AnchorFailed

TREE = Tree(numbered(9))
NAME = "cloister.example%2Flog"
ENOUGH_S = 60.0


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    """A medium that was prepared."""
    folder = tmp_path / "medium"
    folder.mkdir()
    (folder / MARKER).touch()
    return folder


def put(folder: Path, tree: Tree, size: int, **options: bool) -> int:
    """Anchor one head."""
    return DirectorySink(folder, **options).anchor(tree.head(size), time.monotonic() + ENOUGH_S).size


def test_each_head_is_a_file_and_the_newest_stands_twice(medium: Path) -> None:
    """As signed, readable by everybody and writable by nobody, in a folder named by the log."""
    for size in (3, 7, 7):
        assert put(medium, TREE, size) == size
    log = medium / NAME
    assert sorted(path.name for path in log.iterdir()) == ["3.checkpoint", "7.checkpoint", NEWEST]
    assert (log / "3.checkpoint").read_text() == TREE.head(3).note
    assert (log / NEWEST).read_text() == TREE.head(7).note
    assert {path.stat().st_mode & 0o777 for path in log.iterdir()} == {0o444}


def test_a_medium_that_is_written_once_gets_no_file_that_would_be_replaced(medium: Path) -> None:
    """Heads only."""
    put(medium, TREE, 3, written_once=True)
    put(medium, TREE, 7, written_once=True)
    assert sorted(path.name for path in (medium / NAME).iterdir()) == ["3.checkpoint", "7.checkpoint"]


def test_an_absent_medium_is_a_fault_and_nothing_is_made_in_its_place(tmp_path: Path, medium: Path) -> None:
    """No folder, and an empty mount point without the marker: said with the remedy, and left as it was."""
    with pytest.raises(AnchorFailed, match="No such file"):
        put(tmp_path / "gone", TREE, 3)
    assert not (tmp_path / "gone").exists()
    (medium / MARKER).unlink()
    with pytest.raises(AnchorFailed, match=f"touch {medium}/{MARKER}"):
        put(medium, TREE, 3)
    assert list(medium.iterdir()) == []


@pytest.mark.parametrize("kept_there", [False, True], ids=["absent", "a folder"])
def test_a_link_on_the_medium_leads_nowhere(medium: Path, tmp_path: Path, kept_there: bool) -> None:
    """Whoever can write on a medium does not choose where on the disk a head is written."""
    elsewhere = tmp_path / "elsewhere"
    if kept_there:
        elsewhere.mkdir()
    (medium / NAME).symlink_to(elsewhere)
    with pytest.raises(AnchorFailed, match=r"Not a directory|Too many levels"):
        put(medium, TREE, 3)
    assert not elsewhere.exists() or list(elsewhere.iterdir()) == []


def test_a_medium_may_be_named_by_a_link(medium: Path, tmp_path: Path) -> None:
    """The operator's own way to it is the operator's choice."""
    (tmp_path / "by-label").symlink_to(medium)
    assert put(tmp_path / "by-label", TREE, 3) == 3


def test_a_log_that_was_rolled_back_is_found_by_the_medium(medium: Path) -> None:
    """It never goes back, in any order, and changes nothing in what it holds."""
    put(medium, TREE, 7)
    with pytest.raises(AnchorAhead, match="holds a head of 7 entries, this log has 3"):
        put(medium, TREE, 3)
    assert sorted(path.name for path in (medium / NAME).iterdir()) == ["7.checkpoint", NEWEST]


def test_a_log_that_was_forked_is_found_by_the_medium(medium: Path) -> None:
    """The same size and another root is refused, and the file that is there stays."""
    put(medium, TREE, 7)
    with pytest.raises(AnchorAhead, match="another head of 7 entries"):
        put(medium, Tree(numbered(9, changed=4)), 7)
    assert (medium / NAME / "7.checkpoint").read_text() == TREE.head(7).note


def test_the_same_head_under_a_second_key_is_the_same_head(medium: Path) -> None:
    """While a key rotates, the lines differ and the head does not; `newest` then has both."""
    put(medium, TREE, 7)
    both = Tree(numbered(9), [OTHER_SIGNER, SIGNER])
    put(medium, both, 7)
    assert (medium / NAME / "7.checkpoint").read_text() == TREE.head(7).note
    assert (medium / NAME / NEWEST).read_text() == both.head(7).note


def test_what_was_cut_short_before_is_no_obstacle(medium: Path) -> None:
    """A draft of a writing that a power cut ended is thrown away, and is never taken for a head."""
    put(medium, TREE, 3)
    (medium / NAME / ".7.checkpoint.new").write_text("half of")
    assert len(read_anchors(medium, [SIGNER.verifier]).anchors) == 1
    put(medium, TREE, 7)
    assert sorted(path.name for path in (medium / NAME).iterdir()) == ["3.checkpoint", "7.checkpoint", NEWEST]


def test_a_file_that_is_no_checkpoint_is_not_replaced(medium: Path) -> None:
    """Whoever damaged the medium is named; the damage stays for the auditor."""
    put(medium, TREE, 3)
    damaged = medium / NAME / "3.checkpoint"
    damaged.unlink()
    damaged.write_bytes(b"\xff\xfe")
    with pytest.raises(AnchorFailed, match="is no checkpoint"):
        put(medium, TREE, 3)
    assert damaged.read_bytes() == b"\xff\xfe"


def test_a_file_system_without_hard_links_is_served_too(medium: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAT says EPERM to a link: the file then comes by its only other way, renaming, after looking."""

    def no_links(*_arguments: object, **_named: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    put(medium, TREE, 3)
    with pytest.raises(AnchorAhead):
        put(medium, Tree(numbered(9, changed=1)), 3)
    assert (medium / NAME / "3.checkpoint").read_text() == TREE.head(3).note


def test_a_medium_mounted_read_only_says_so(tmp_path: Path) -> None:
    """A real one; what it holds already is found to be there, a new head is refused by name."""
    with mounted(tmp_path / "stick", "size=1m") as folder:
        (folder / MARKER).touch()
        put(folder, TREE, 3, written_once=True)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        with pytest.raises(AnchorFailed, match="Read-only file system"):
            put(folder, TREE, 7, written_once=True)
        assert [path.name for path in (folder / NAME).iterdir()] == ["3.checkpoint"]


def test_a_full_medium_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    """A real one of a few pages; after space came back the next head is taken."""
    with mounted(tmp_path / "stick", "size=64k") as folder:
        (folder / MARKER).touch()
        put(folder, TREE, 3)
        ballast = folder / "ballast"
        with ballast.open("wb", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(folder).free)
        with pytest.raises(AnchorFailed, match="No space left on device"):
            put(folder, TREE, 7)
        assert not (folder / NAME / "7.checkpoint").exists()
        ballast.unlink()
        put(folder, TREE, 7)
        assert (folder / NAME / "7.checkpoint").read_text() == TREE.head(7).note


@pytest.mark.parametrize("origin", ["../../etc", "..", ".hidden", "a/b", "log\u00e9.example", "x~y", "A" * 60])
def test_no_origin_leaves_its_folder(origin: str) -> None:
    """One name, without separators, that no shell or medium reads otherwise; two origins have two names."""
    name = file_name_of(origin)
    assert name.isascii()
    assert not set(name) & set('/\\:*?"<>|~')
    assert not name.startswith(".")
    assert file_name_of(origin + "x") != name
