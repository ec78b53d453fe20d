from __future__ import annotations

import datetime as dt
import re

import pytest
from audit_log_builder import make_event
from hypothesis import given
from siem_leaves import ATTACKS, NAME, any_leaf, attacked, exported

from audit.siem.cef import encode_cef
from audit.siem.exported import ExportedLeaf, LogName
from audit.siem.ocsf import encode_ocsf
from audit.siem.severity import severity_of
from audit.siem.syslog import octet_counted, syslog_message

GRAMMAR = re.compile(
    rb"<(?P<pri>0|[1-9]\d{0,2})>(?P<version>[1-9]\d{0,2})"
    rb" (?P<time>-|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d))"
    rb" (?P<host>-|[!-~]{1,255}) (?P<app>-|[!-~]{1,48}) (?P<proc>-|[!-~]{1,128}) (?P<msgid>-|[!-~]{1,32})"
    rb' (?P<sd>-|(?:\[[!#-<>-\\^-~]{1,32}(?: [!#-<>-\\^-~]{1,32}="(?:[^"\\\]]|\\.)*")*\])+)'
    rb"(?: (?P<msg>.*))?",
    re.DOTALL,
)
"""RFC 5424, section 6, ABNF by ABNF."""
BOM = b"\xef\xbb\xbf"


@given(any_leaf())
def test_every_message_is_in_the_grammar(leaf: ExportedLeaf) -> None:
    """Head by the RFC's own rules, the event whole behind it, UTF-8 announced exactly where it is used."""
    for encode in (encode_cef, encode_ocsf):
        event = encode(leaf, NAME)
        found = GRAMMAR.fullmatch(syslog_message(leaf, NAME, event))
        assert found is not None
        assert int(found["pri"]) == 13 * 8 + severity_of(leaf.leaf.event.kind).syslog
        assert (found["version"], found["app"], found["host"]) == (b"1", b"cloister", b"cloister.example/log")
        assert (found["msgid"].decode(), found["proc"]) == (leaf.leaf.event.kind, b"1")
        assert found["msg"] == (event if event.isascii() else BOM + event)
        at = dt.datetime.fromisoformat(found["time"].decode())
        assert at == dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=leaf.leaf.event.ts_us)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_injection_starts_no_second_message(attack: str) -> None:
    """On a stream the count says where the next message begins, in a file the newline does: neither is the leaf's."""
    leaf = attacked(ATTACKS[attack])
    message = syslog_message(leaf, NAME, encode_cef(leaf, NAME))
    assert b"\n" not in message
    assert b"\r" not in message
    framed = octet_counted(message) * 2
    count, _, rest = framed.partition(b" ")
    assert rest[: int(count)] == message
    assert rest[int(count) :] == octet_counted(message)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("synchronised", b'[timeQuality tzKnown="1" isSynced="1"]'),
        ("unsynchronised", b'[timeQuality tzKnown="1" isSynced="0"]'),
        ("unknown", b"-"),
        ('x"] [evil', b"-"),
    ],
)
def test_the_quality_of_the_clock_travels_along(state: str, said: bytes) -> None:
    """By the names that are registered for it; what nobody knows is not said."""
    leaf = exported(make_event(1, clock_state=state))
    found = GRAMMAR.fullmatch(syslog_message(leaf, NAME, b"x"))
    assert found is not None
    assert found["sd"] == said


def test_a_hostile_log_name_is_a_host_all_the_same() -> None:
    """A field of the head has printable ASCII and a length; what has none is the nil value."""
    leaf = exported(make_event(1))
    for origin, host in (("a b\n\x1bé", b"a_b___"), ("", b"-"), ("h" * 300, b"h" * 255)):
        found = GRAMMAR.fullmatch(syslog_message(leaf, LogName(origin, "1"), b"x"))
        assert found is not None
        assert found["host"] == host
