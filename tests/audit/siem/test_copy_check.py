from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path

import pytest
from audit_log_builder import SIGNER, build_log, event_now, make_event
from hypothesis import given
from hypothesis import strategies as st
from siem_leaves import NAME, any_leaf

from audit.event import Floor, Pruned
from audit.reader import AuditReader
from audit.siem.copy_check import CopyReport, IndexRanges, check_copy
from audit.siem.copy_lines import CopiedEvent, NotAnEvent, read_line
from audit.siem.destination import Destination
from audit.siem.exported import ExportedLeaf
from audit.store import create_log
from audit.writer import AuditWriter, WriterConfig

FORMS = ("jsonl+file:///a", "cef+file:///a", "ocsf+file:///a", "cef+unix:///a", "jsonl+unix:///a", "ocsf+unix:///a")
NUM_LEAVES = 1200


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of more leaves than one look-up takes."""
    path = tmp_path_factory.mktemp("log") / "audit.db"
    build_log(path, [make_event(number) for number in range(NUM_LEAVES)], [NUM_LEAVES])
    return path


def copied(log: Path, form: str) -> list[bytes]:
    """Give the copy that a destination would have of the whole log, as lines."""
    destination = Destination.parse(form)
    with AuditReader(log) as reader:
        pages = [reader.entries(after=after, limit=600).entries for after in (None, 599)]
    leaves = [ExportedLeaf(one.leaf, one.leaf_bytes, one.leaf_hash.hex()) for page in pages for one in page]
    return [destination.encode(leaf, NAME).rstrip(b"\n") for leaf in leaves]


def check(log: Path, lines: list[bytes], **arguments) -> CopyReport:
    """Check one file of these lines."""
    with AuditReader(log) as reader:
        return check_copy([("copy", io.BytesIO(b"\n".join(lines) + b"\n"))], reader, **arguments)


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_copy_is_found_whole(log: Path, form: str) -> None:
    """In every form, also backwards and with repeats, as an outage leaves them."""
    lines = copied(log, form)
    report = check(log, [*lines[::-1], *lines[500:520]])
    assert report.ok
    assert (report.num_matching, report.num_repeated) == (NUM_LEAVES + 20, 20)
    assert (report.from_index, report.last_index, report.num_behind) == (0, NUM_LEAVES - 1, 0)


@pytest.mark.parametrize("form", FORMS)
def test_gaps_are_named(log: Path, form: str) -> None:
    """Every missing range, both ends; what is cut off at the end is counted apart."""
    lines = copied(log, form)
    report = check(log, [*lines[10:20], *lines[23:30], *lines[31:1000]])
    assert not report.ok
    assert report.gaps == ((20, 22), (30, 30))
    assert (report.num_missing, report.num_behind) == (4, 200)
    from_start = check(log, lines[10:], from_index=0)
    assert from_start.gaps == ((0, 9),)


def test_nothing_is_no_copy(log: Path) -> None:
    """An empty file is not called whole."""
    report = check(log, [])
    assert not report.ok
    assert (report.num_lines, report.num_behind) == (0, NUM_LEAVES)


async def test_what_the_log_gave_up_since_is_neither_missing_nor_checked(tmp_path: Path) -> None:
    """A copy may outlive the retention of the log: counted apart, but an altered leaf is found in it all the same."""
    path = tmp_path / "audit.db"
    create_log(path, [SIGNER])
    writer = AuditWriter.open(WriterConfig(path, "n", "b", min_free_bytes=0), [SIGNER])
    for future in [writer.submit(event_now(number, "log:read")) for number in range(300)]:
        future.result()
    with AuditReader(path) as reader:
        entries = list(reader.walk())
    leaves = [ExportedLeaf(one.leaf, one.leaf_bytes, one.leaf_hash.hex()) for one in entries]
    lines = [Destination.parse(FORMS[0]).encode(leaf, NAME).rstrip(b"\n") for leaf in leaves]
    await writer.prune(event_now(0, "log:pruned"), Floor(Pruned.LEAF, 256))
    writer.close()
    report = check(path, [*lines[:2], *lines[3:]], from_index=0)
    assert (report.num_pruned, report.num_matching, report.gaps, report.faults) == (255, 44, ((2, 2),), ())
    altered = lines[7].replace(b'"actor":"key-1"', b'"actor":"key-2"')
    assert altered != lines[7]
    [fault] = check(path, [*lines[:7], altered, *lines[8:]]).faults
    assert "altered" in fault.what


@pytest.mark.parametrize("form", FORMS)
def test_another_hash_or_index_is_found(log: Path, form: str) -> None:
    """Each altered value of an event is one fault with its line."""
    lines = copied(log, form)
    digest = read_line(lines[5]).leaf_hash.encode()
    altered = [*lines[:5], lines[5].replace(digest, b"0" * 64), *lines[6:]]
    report = check(log, altered)
    assert [(fault.line, fault.what) for fault in report.faults] == [(6, "entry 5 has another leaf hash in the log")]
    assert report.gaps == ((5, 5),)
    beyond = [line.replace(b"1199", b"9199") for line in lines[-1:]]
    assert check(log, [*lines[:-1], *beyond]).faults[0].what == "entry 9199 is not in the log"


def test_an_altered_leaf_beside_its_true_hash_is_found(log: Path) -> None:
    """The native form holds the whole leaf: every member counts, wherever it was changed."""
    line = json.loads(copied(log, FORMS[0])[7])
    assert line["leaf"]["actor"] == "key-1"
    line["leaf"]["actor"] = "key-2"
    [fault] = check(log, [json.dumps(line).encode()]).faults
    assert "altered" in fault.what


def test_a_receivers_spelling_of_the_same_json_is_no_alteration(log: Path) -> None:
    """A pipeline may sort members and escape letters: the content is the same."""
    lines = [json.dumps(json.loads(line), indent=None, sort_keys=False) for line in copied(log, FORMS[0])]
    assert check(log, [line.encode() for line in lines]).ok


@pytest.mark.parametrize(
    "line",
    [
        b"x",
        b"{",
        b"[]",
        b'{"leaf":7}',
        b"\xff",
        b'{"leaf":{"a":1e400},"index":1,"leaf_hash":"' + b"0" * 64 + b'"}',
        b'{"leaf":{},"index":true,"leaf_hash":"' + b"0" * 64 + b'"}',
        b'{"leaf":{},"index":1,"leaf_hash":"0"}',
        b"CEF:0|a|b|c|d|e|3|externalId=1 cs1=" + b"0" * 64,
        b"CEF:0|a|b|c|d|e|3|externalId=-1 cs1=" + b"0" * 64 + b" cs1Label=leafHash",
        b"[" * 100_000 + b"{" * 100_000,
        b'{"metadata":{"sequence":1,"uid":"' + b"0" * 64 + b'","log_provider":"other"}}',
        b"0" * 2**20,
    ],
)
def test_a_line_that_is_no_event_is_a_fault_and_stops_nothing(log: Path, line: bytes) -> None:
    """Named by its line; what comes behind it is still read."""
    lines = copied(log, FORMS[0])[:2]
    report = check(log, [lines[0], line, b"", lines[1]])
    assert [fault.line for fault in report.faults] == [2]
    assert report.num_matching == 2


@given(any_leaf(), st.sampled_from(FORMS))
def test_what_an_encoder_wrote_is_read_back(leaf: ExportedLeaf, form: str) -> None:
    """Index and hash, whatever the leaf's texts spell; with another program's head before it too."""
    line = Destination.parse(form).encode(leaf, NAME).rstrip(b"\n")
    content = leaf.leaf_hash if form.startswith("jsonl") else None
    for head in (b"", b"Nov 24 12:00:00 host cloister: "):
        assert read_line(head + line) == CopiedEvent(leaf.index, leaf.leaf_hash, content)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_refused(line: bytes) -> None:
    """Never another exception."""
    with suppress(NotAnEvent):
        assert read_line(line).index >= 0


@given(st.lists(st.integers(0, 60), max_size=80), st.integers(0, 60))
def test_ranges_are_a_set(indexes: list[int], start: int) -> None:
    """Against the plainest set there is."""
    ranges, plain = IndexRanges(), set()
    for index in indexes:
        assert ranges.add(index) == (index not in plain)
        plain.add(index)
    missing = {index for first, last in ranges.gaps(start) for index in range(first, last + 1)}
    assert missing == {index for index in range(start, max(plain, default=start - 1) + 1) if index not in plain}
    assert all(end < start for end, start in zip(ranges.ends, ranges.starts[1:], strict=False))
