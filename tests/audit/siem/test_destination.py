from __future__ import annotations

import pytest
from siem_leaves import NAME, attacked

from audit.errors import AuditRefused
from audit.siem.destination import Destination, Format, Transport


@pytest.mark.parametrize(
    ("text", "form", "transport"),
    [
        ("cef+tcp://10.0.0.5:601", Format.CEF, Transport.TCP),
        ("ocsf+tcp://[::1]:601", Format.OCSF, Transport.TCP),
        ("jsonl+tls://siem.plant.example:6514", Format.JSONL, Transport.TLS),
        ("cef+udp://127.0.0.1:514", Format.CEF, Transport.UDP),
        ("jsonl+unix:///dev/log", Format.JSONL, Transport.UNIX),
        ("jsonl+file:///srv/siem/cloister.jsonl", Format.JSONL, Transport.FILE),
    ],
)
def test_a_destination_is_one_line(text: str, form: Format, transport: Transport) -> None:
    """Form, transport and place; its name is what the operator wrote."""
    found = Destination.parse(text)
    assert (found.text, found.format, found.transport) == (text, form, transport)
    if found.path is None:
        assert found.host
        assert found.port
    else:
        assert text.endswith(f"//{found.path}")


@pytest.mark.parametrize(
    "text",
    [
        *("", "cef", "cef+tcp", "tcp://10.0.0.5:601", "xml+tcp://10.0.0.5:601", "cef+http://10.0.0.5:601"),
        *("cef+tcp://10.0.0.5", "cef+tcp://:601", "cef+tcp://10.0.0.5:0", "cef+tcp://10.0.0.5:70000"),
        *("cef+tcp://10.0.0.5:601/path", "cef+tcp://user:secret@10.0.0.5:601", "cef+tcp://10.0.0.5:601?x=1"),
        *("jsonl+file://relative/path", "jsonl+file:path", "jsonl+file:///srv/", "cef+tcp://10.0.0.5:601#x"),
        *("jsonl+udp://10.0.0.5:514", "ocsf+udp://10.0.0.5:514", "cef+tcp://10.0.0.5:6\n01", "cef+tcp://[::1:601"),
    ],
)
def test_what_is_no_destination_is_refused_by_name(text: str) -> None:
    """Nothing is guessed, and nothing is dropped in silence."""
    with pytest.raises(AuditRefused) as caught:
        Destination.parse(text)
    assert repr(text) in str(caught.value)


def test_each_transport_has_its_frame() -> None:
    """A line in a file, a message in a datagram, a counted message on a stream."""
    leaf = attacked("x")
    line = Destination.parse("jsonl+file:///a").encode(leaf, NAME)
    assert line.endswith(b"}\n")
    datagram = Destination.parse("jsonl+unix:///a").encode(leaf, NAME)
    assert datagram.startswith(b"<108>1 ")
    assert datagram.endswith(line.removesuffix(b"\n"))
    assert Destination.parse("jsonl+tcp://h:1").encode(leaf, NAME) == b"%d %b" % (len(datagram), datagram)
