"""How loudly an event speaks, in the scales of the three formats.  Pure.

A kind is `subject:action`; the action word decides, and a word that nobody listed is plain news.  So a kind that is
added tomorrow has a severity, and an alarming word cannot be sent as less.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Severity:
    """One degree in each scale."""

    syslog: int
    """RFC 5424: 0 emergency to 7 debug."""
    cef: int
    """0 to 10."""
    ocsf: int
    """1 informational, 2 low, 3 medium, 4 high, 5 critical."""


NEWS = Severity(syslog=6, cef=3, ocsf=1)
NOTICE = Severity(syslog=5, cef=4, ocsf=2)
WARNING = Severity(syslog=4, cef=6, ocsf=3)
ERROR = Severity(syslog=3, cef=8, ocsf=4)
CRITICAL = Severity(syslog=2, cef=10, ocsf=5)

_OF_ACTION = {
    "halted": CRITICAL,
    "died": ERROR,
    "failing": ERROR,
    "abandoned": WARNING,
    "filling": WARNING,
    "changed": WARNING,
    "denied": WARNING,
    "failed": WARNING,
    "refused": WARNING,
    "revoked": NOTICE,
    "started": NOTICE,
    "stopped": NOTICE,
    "recovered": NOTICE,
    "loaded": NOTICE,
}


def severity_of(kind: str) -> Severity:
    """Give the severity of an event of this kind."""
    return _OF_ACTION.get(kind.partition(":")[2], NEWS)
