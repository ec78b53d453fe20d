"""What stands beside a leaf: committed with it, bound by it, and found when it is altered."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable
from hashlib import sha256

import psycopg
import pytest
from audit_log_builder import PAIRING, SIGNER, event_now
from log_places import LogPlace

from audit.beside import bind_contents, policy_ids
from audit.errors import AuditCorrupt, AuditRefused
from audit.event import SealedContent
from audit.leaf import MAX_PROJECTED_BYTES
from audit.reader import AuditReader
from audit.report import Place
from audit.verify import verify_log
from audit.writer import AuditWriter

OpenWriter = Callable[..., AuditWriter]
PROMPT = SealedContent("prompt", "key-1", b"\x01" * 12, b"sealed prompt")
OUTPUT = SealedContent("output", "key-1", b"\x02" * 12, b"sealed output")


def with_policies(number: int, *ids: str):
    """An event that these policies decided."""
    event = event_now(number)
    return dataclasses.replace(event, facts={**event.facts, "policy_ids": list(ids)})


@pytest.fixture
def written(open_writer: OpenWriter, place: LogPlace) -> LogPlace:
    """Three entries: with policies, with contents, with neither."""
    writer = open_writer()
    writer.submit(with_policies(0, "developer-infers", "b", "b")).result()
    writer.submit(event_now(1), [PROMPT, OUTPUT]).result()
    writer.submit(event_now(2)).result()
    writer.close()
    return place


def test_contents_are_committed_with_their_leaf_which_has_their_digest(written: LogPlace):
    """What is read back is what was sealed, and the leaf says which bytes those were."""
    with AuditReader(written.reader) as reader:
        assert reader.content(1, "prompt") == PROMPT
        assert reader.content(1, "output") == OUTPUT
        assert reader.content(2, "prompt") is None
        said = reader.entry(1).leaf.event.facts["contents"]["prompt"]
    digest = sha256(PROMPT.nonce + PROMPT.ciphertext).hexdigest()
    assert said == {"key_id": "key-1", "num_bytes": 13, "sha256": digest}
    assert verify_log(written.reader, [SIGNER.verifier], PAIRING).ok


def test_a_leaf_cannot_claim_content_that_was_not_committed_with_it():
    """The fact is the log's own."""
    event = dataclasses.replace(event_now(0), facts={"contents": {}})
    with pytest.raises(AuditRefused, match="the log's own"):
        bind_contents(event, [])


def test_a_leaf_cannot_claim_a_floor_that_was_not_raised_with_it():
    """A verifier would take it for an act of pruning without its row, for ever."""
    event = dataclasses.replace(event_now(0), facts={"what": "leaf", "minimum_index": 256})
    with pytest.raises(AuditRefused, match="the log's own"):
        bind_contents(event, [])


@pytest.mark.parametrize("contents", [[PROMPT, PROMPT], [dataclasses.replace(PROMPT, phase="../x")]])
def test_contents_of_one_phase_or_of_no_name_are_refused(open_writer: OpenWriter, contents: list[SealedContent]):
    """Nothing is recorded then."""
    writer = open_writer()
    with pytest.raises(AuditRefused, match="phase"):
        writer.submit(event_now(0), contents)


def test_a_leaf_is_found_by_each_policy_once(written: LogPlace):
    """A policy named twice decided once."""
    with written.master() as raw:
        rows = raw.execute("SELECT idx, policy_id FROM leaf_policy ORDER BY 1, 2")
    assert rows == [(0, "b"), (0, "developer-infers")]
    assert policy_ids(dataclasses.replace(event_now(0), facts={"policy_ids": ["a", 1, "a"]})) == ("a",)


def test_a_batch_with_more_policy_ids_than_a_statement_has_parameters_does_not_halt_the_log(
    open_writer: OpenWriter, place: LogPlace
):
    """One commit of 32,768 rows beside four leaves."""
    writer = open_writer()
    ids = [f"{number:04}" for number in range(8_192)]
    with writer._line._condition:  # all into one batch
        waiting = [writer.submit(with_policies(number, *ids)) for number in range(4)]
    assert [future.result(timeout=60).tree_size for future in waiting] == [4] * 4
    assert verify_log(place.reader, [SIGNER.verifier], PAIRING).ok


@pytest.mark.parametrize("text", ["a" * (MAX_PROJECTED_BYTES + 1), "zero\0", "ü" * (MAX_PROJECTED_BYTES // 2 + 1)])
@pytest.mark.parametrize("field", ["actor", "subject", "label", "policy"])
def test_what_no_index_can_hold_is_refused_before_it_could_halt_the_log(open_writer: OpenWriter, text: str, field: str):
    """A text that one database refuses would end the writer on that database."""
    event = event_now(0)
    if field == "policy":
        event = dataclasses.replace(event, facts={"policy_ids": [text]})
    elif field == "label":
        event = dataclasses.replace(event, facts={"label": text})
    else:
        event = dataclasses.replace(event, **{field: text})
    with pytest.raises(AuditRefused):
        open_writer().submit(event)


ALTERATIONS = {
    "a policy id changed": ("UPDATE leaf_policy SET policy_id = 'x' WHERE policy_id = 'b'", Place.BESIDE, 0),
    "a policy id gone": ("DELETE FROM leaf_policy WHERE policy_id = 'b'", Place.BESIDE, 0),
    "a policy id moved": ("UPDATE leaf_policy SET idx = 2 WHERE policy_id = 'b'", Place.BESIDE, 0),
    "a policy id added": ("INSERT INTO leaf_policy VALUES (2, 'b')", Place.BESIDE, 2),
    "a policy id of no entry": ("INSERT INTO leaf_policy VALUES (9, 'b')", Place.BESIDE, 9),
    "ciphertext changed": ("UPDATE content SET ciphertext = {zero} WHERE phase = 'prompt'", Place.CONTENT, 1),
    "nonce changed": ("UPDATE content SET nonce = {zero} WHERE phase = 'prompt'", Place.CONTENT, 1),
    "key id changed": ("UPDATE content SET key_id = 'key-2' WHERE phase = 'prompt'", Place.CONTENT, 1),
    "phase changed": ("UPDATE content SET phase = 'other' WHERE phase = 'prompt'", Place.CONTENT, 1),
    "content gone": ("DELETE FROM content WHERE phase = 'prompt'", Place.CONTENT, 1),
    "content moved": ("UPDATE content SET idx = 2 WHERE phase = 'prompt'", Place.CONTENT, 1),
    "content of no entry": ("INSERT INTO content VALUES (9, 'prompt', 'k', {zero}, {zero})", Place.BESIDE, 9),
    "a floor nobody recorded": ("INSERT INTO pruning VALUES ('content', 1, 2)", Place.BESIDE, 2),
    "a floor to hide content": (
        "INSERT INTO pruning VALUES ('content', 2, 2); DELETE FROM content",
        Place.BESIDE,
        2,
    ),
    "a floor of an entry beyond the end": ("INSERT INTO pruning VALUES ('content', 1, 77)", Place.BESIDE, None),
}


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_whatever_is_altered_beside_a_leaf_is_found_at_its_place(written: LogPlace, alteration: str):
    """Each kind of row, each column."""
    statements, place, index = ALTERATIONS[alteration]
    with written.attacker() as raw:
        raw.executescript(statements.format(zero=raw.zeros(1)))
    findings = verify_log(written.reader, [SIGNER.verifier], PAIRING).findings
    assert (place, index) in {(finding.place, finding.index) for finding in findings}


def test_content_that_is_not_the_leafs_is_not_handed_out(written: LogPlace):
    """Reading does not wait for a verification."""
    with written.attacker() as raw:
        raw.execute(f"UPDATE content SET ciphertext = {raw.zeros(1)} WHERE phase = 'prompt'")
        raw.execute("DELETE FROM content WHERE phase = 'output'")
    with AuditReader(written.reader) as reader:
        for phase in ("prompt", "output"):
            with pytest.raises(AuditCorrupt):
                reader.content(1, phase)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO content VALUES (1, 'extra', 'k', {zero}, {zero})",
        "INSERT INTO leaf_policy VALUES (1, 'extra')",
        "INSERT INTO pruning VALUES ('leaf', 256, 1)",
        "UPDATE content SET key_id = 'k'",
        "UPDATE leaf_policy SET policy_id = 'k'",
        "DELETE FROM content",
        "DELETE FROM leaf_policy",
    ],
)
def test_the_fence_keeps_accidents_from_what_is_signed(written: LogPlace, statement: str):
    """Nothing is added beside a signed entry, changed or taken away."""
    with written.master() as raw, pytest.raises((sqlite3.IntegrityError, psycopg.IntegrityError)):
        raw.execute(statement.format(zero=raw.zeros(1)))
