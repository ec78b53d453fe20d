"""What makes a folder an evidence pack, so that neither a plain export nor a robbed pack is judged as the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.evidence.index import is_evidence


@pytest.mark.parametrize(
    ("names", "is_pack"),
    [
        (["log.vkey"], False),
        (["log.vkey", "anchors"], False),  # heads that witnesses cosigned travel with every export
        (["log.vkey", "index.json"], True),
        (["log.vkey", "records.jsonl"], True),  # its index was taken away: that is a finding
        (["log.vkey", "anchors", "verify.py"], True),
    ],
)
def test_a_folder_with_more_than_an_export_is_meant_as_a_pack(tmp_path: Path, names: list[str], is_pack: bool):
    """The log, its key and witnessed heads are an export."""
    (tmp_path / "tlog").mkdir()
    for name in names:
        (tmp_path / name).touch()
    assert is_evidence(tmp_path) is is_pack
