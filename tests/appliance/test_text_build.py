"""The name of what renders and tokenizes changes with it, and with nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from appliance import text_build as named

FILES = ("choice_text.py", "prompting.py", "text/tokenizer.py")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the sources."""
    for name in named.SOURCE_FILES:
        shutil.copy(named.PACKAGE / name, tmp_path / name)
    shutil.copytree(named.PACKAGE / named.SOURCE_FOLDER, tmp_path / named.SOURCE_FOLDER)
    return tmp_path


def test_a_copy_has_the_same_name(package: Path):
    """Where the package lies means nothing, nor what else lies there."""
    (package / "other.py").write_text("x = 1\n")
    assert named.text_build(package) == named.text_build()


@pytest.mark.parametrize("name", FILES)
def test_a_changed_source_has_another_name(package: Path, name: str):
    """One more line in any source is another build."""
    with (package / name).open("a") as file:
        file.write("# changed\n")
    assert named.text_build(package) != named.text_build()


def test_another_library_has_another_name(monkeypatch: pytest.MonkeyPatch):
    """The version of what tokenizes counts as well."""
    before = named.text_build()
    monkeypatch.setattr(named, "version", lambda _library: "0")
    assert named.text_build() != before
