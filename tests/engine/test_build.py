"""What computes an answer has a name that says so."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from engine.build import processor_name


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("processor : 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: Another\n", "Some CPU @ 2 GHz"),
        ("processor : 0\n", "unnamed"),
        (None, "unnamed"),
    ],
)
def test_a_processor_is_named_as_far_as_the_machine_tells(tmp_path: Path, table: str | None, name: str) -> None:
    """Machine, instruction set and the first name that Linux lists; no list is no error."""
    path = tmp_path / "cpuinfo"
    if table is not None:
        path.write_text(table)
    assert processor_name("AVX512", path) == f"{platform.machine()} AVX512 {name}"
