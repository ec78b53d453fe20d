"""docs/reliability.md names lanes that exist and tests that are there."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_lane_and_every_test_on_the_page_exists(repository: Path):
    """A command that works as written, a file that can be opened."""
    page = (repository / "docs/reliability.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    lanes = set(re.findall(r"`make ([a-z-]+)", page))
    assert {"faults", "crash", "tamper", "bench-log"} <= lanes <= targets
    files = re.findall(r"`((?:tests|benchmarks)/[\w./]+)`", page)
    assert len(files) > 8
    assert [name for name in files if not (repository / name).is_file()] == []


def test_the_lanes_run_the_files_that_the_page_says(repository: Path):
    """Each row's files stand in the recipe of its target."""
    page = (repository / "docs/reliability.md").read_text()
    makefile = (repository / "Makefile").read_text()
    for lane, files in re.findall(r"^\| `make ([a-z-]+)[^|]*\|[^|]*\| (.*) \|$", page, re.MULTILINE):
        recipe = re.search(rf"^{lane}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
        assert recipe is not None, lane
        for name in re.findall(r"`([\w./]+)`", files):
            assert name in recipe.group(1) or Path(name).stem in recipe.group(1), (lane, name)
