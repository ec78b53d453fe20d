from __future__ import annotations

import re
from pathlib import Path

from audit.siem.severity import NEWS, severity_of

SYSLOG = {"critical": 2, "error": 3, "warning": 4, "notice": 5, "informational": 6}
OCSF = {"informational": 1, "low": 2, "medium": 3, "high": 4, "critical": 5}


def test_the_page_says_how_loud_each_word_is(repository: Path) -> None:
    """docs/siem.md lists every word with its three degrees; a word that nobody listed is news."""
    rows = re.findall(
        r"^\| (.+) \| (\w+) \| (\d+) \| (\w+) \|$", (repository / "docs/siem.md").read_text(), re.MULTILINE
    )
    assert len(rows) == 5
    said = {word: row[1:] for row in rows for word in re.findall(r"`(\w+)`", row[0])}
    for word, (syslog, cef, ocsf) in said.items():
        found = severity_of(f"x:{word}")
        assert (found.syslog, found.cef, found.ocsf) == (SYSLOG[syslog], int(cef), OCSF[ocsf]), word
    assert severity_of("x:completed") == NEWS
    source = (repository / "audit/siem/severity.py").read_text()
    assert set(re.findall(r'^    "(\w+)":', source, re.MULTILINE)) == set(said)
