"""Erasure through the perimeter: who may, what beats it, what a crash leaves, and what the certificate proves."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing

import pytest
from perimeter_bench import PerimeterBench
from walk_bench import SIGNER, Fault, collect, completion

from appliance.audit_trail import AuditTrail, Clock, key_subject
from appliance.identity.principal import Principal
from appliance.keeping.certificate import check_certificate
from appliance.keeping.erasure import finish_after_restart, open_erasures
from appliance.keeping.holds import living_holds
from audit.checkpoint import LogSigner
from audit.errors import ProofRefused, SubjectErased
from audit.reader import AuditReader, EntryFilter
from audit.subject_keys.commitment import Commitment
from audit.subject_keys.keyring import SubjectKeyring
from audit.verify import verify_log
from audit.writer import AuditWriter, WriterConfig

ALICE = Principal("alice", "User", "plant-1", ("developer",), 2, "key-alice")
ERASE = {"subject": "alice", "reason": "case 12"}


async def has_asked(bench: PerimeterBench, request_id: str = "r1", who: Principal = ALICE) -> Commitment:
    """Let a person have a request answered; give the prompt's commitment."""
    walk = bench.walk_bench
    _, error = await collect(await walk.walk.admit(walk.asking(request_id, who), completion()))
    assert error is None
    admitted = bench.reader.entries(EntryFilter(subject=request_id)).entries[0]
    made = admitted.leaf.event.facts["commitments"]["prompt"]
    return Commitment(made["key_id"], made["hmac"])


async def post(bench: PerimeterBench, path: str, body=None, role: str = "privacy"):
    """Ask with one role's key."""
    async with bench.client(role) as client:
        return await client.post(path, json=body)


def kinds(bench: PerimeterBench, *wanted: str) -> list[str]:
    """Kinds on disk, of those that are asked for."""
    return [
        entry.leaf.event.kind for entry in bench.reader.entries(limit=1000).entries if entry.leaf.event.kind in wanted
    ]


async def test_an_erasure_is_decided_done_and_certified(make_perimeter):
    """Afterwards the commitment says `SubjectErased`, and the certificate holds with the public key alone."""
    bench = make_perimeter()
    commitment = await has_asked(bench)
    answer = await post(bench, "/audit/erasures", ERASE)
    assert answer.status_code == 200
    proven = check_certificate(answer.content, SIGNER.verifier)
    assert (proven.subject, proven.tenant, proven.key_ids) == ("alice", "plant-1", (commitment.key_id,))
    assert answer.headers["x-cloister-receipt"].startswith(f"{proven.index}:")
    assert kinds(bench, "subject:erasing", "subject:erased") == ["subject:erasing", "subject:erased"]
    checked = bench.reader.entry(proven.index).leaf.event.facts["checked"]
    assert checked == {"journal_bytes": 0, "keys_searched_for": 1, "living_keys": 0, "traces_found": 0}
    with pytest.raises(SubjectErased):
        bench.appliance.log.keyring.check(commitment, "r1", "prompt", b"")


async def test_proofs_and_root_are_the_same_bytes_before_and_after(make_perimeter):
    """Erasing changes no byte of what was signed: same root and same proofs at the size of before."""
    bench = make_perimeter()
    await has_asked(bench)
    head = bench.reader.head()
    size = head.checkpoint.size
    before = [bench.reader.proof(index, size).to_text() for index in range(size)]
    leaves = [entry.leaf_bytes for entry in bench.reader.entries(limit=1000).entries]
    assert (await post(bench, "/audit/erasures", ERASE)).status_code == 200
    assert [bench.reader.proof(index, size).to_text() for index in range(size)] == before
    assert bench.reader.checkpoint(size) == head
    assert [entry.leaf_bytes for entry in bench.reader.entries(limit=1000).entries][: len(leaves)] == leaves
    assert bench.walk_bench.verify().ok


async def test_no_byte_of_the_key_is_left_in_file_or_journal(make_perimeter):
    """Wrapped key and nonce were there, and are nowhere afterwards."""
    bench = make_perimeter()
    await has_asked(bench)
    path = bench.appliance.log.keyring._file.path
    with closing(sqlite3.connect(path)) as raw:
        [(nonce, wrapped)] = raw.execute("SELECT nonce, wrapped FROM subject_key").fetchall()

    def found(secret: bytes) -> bool:
        return any(secret in file.read_bytes() for file in path.parent.glob(path.name + "*"))

    assert found(nonce)
    assert found(wrapped)
    assert (await post(bench, "/audit/erasures", ERASE)).status_code == 200
    assert not found(nonce)
    assert not found(wrapped)


@pytest.mark.parametrize("subject", ["bob", "Alice", " alice", "alice ", "ALICE", "alice\u200bx"])
async def test_an_unknown_subject_is_said_plainly_and_recorded(make_perimeter, subject: str):
    """An erasure names exactly one person; another spelling is another person, and nobody's key goes."""
    bench = make_perimeter()
    commitment = await has_asked(bench)
    answer = await post(bench, "/audit/erasures", {**ERASE, "subject": subject})
    if answer.status_code == 400:  # a mark that no line shows
        assert answer.json()["error"]["param"] == "subject"
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "subject_unknown")
        assert kinds(bench, "act:refused") == ["act:refused"]
    assert bench.appliance.log.keyring.check(commitment, "r1", "prompt", b'["Once"]')


async def test_another_tenants_person_of_the_same_name_stays(make_perimeter):
    """Two tenants' alice are two people."""
    bench = make_perimeter()
    commitment = await has_asked(bench)
    answer = await post(bench, "/audit/erasures", {**ERASE, "tenant": "plant-2"})
    assert answer.json()["error"]["code"] == "subject_unknown"
    assert bench.appliance.log.keyring.check(commitment, "r1", "prompt", b'["Once"]')


async def test_erasing_twice_gives_the_same_certificate_again(make_perimeter):
    """Whoever lost the file asks again; nothing is destroyed a second time."""
    bench = make_perimeter()
    await has_asked(bench)
    first = check_certificate((await post(bench, "/audit/erasures", ERASE)).content, SIGNER.verifier)
    second = check_certificate((await post(bench, "/audit/erasures", ERASE)).content, SIGNER.verifier)
    assert (second.index, second.key_ids) == (first.index, first.key_ids)
    assert kinds(bench, "subject:erased") == ["subject:erased"]


async def test_a_person_who_comes_back_can_be_erased_again(make_perimeter):
    """A new key, a new erasure, a new certificate."""
    bench = make_perimeter()
    first = await has_asked(bench)
    await post(bench, "/audit/erasures", ERASE)
    second = await has_asked(bench, "r2")
    assert second.key_id != first.key_id
    proven = check_certificate((await post(bench, "/audit/erasures", ERASE)).content, SIGNER.verifier)
    assert proven.key_ids == (second.key_id,)


@pytest.mark.parametrize("role", ["developer", "operator", "auditor"])
async def test_nobody_else_erases(make_perimeter, role: str):
    """Denied by policy, recorded."""
    bench = make_perimeter()
    answer = await post(bench, "/audit/erasures", ERASE, role)
    assert answer.status_code == 403
    assert kinds(bench, "request:denied") == ["request:denied"]


async def test_a_request_under_way_ends_with_its_record_and_no_new_key(make_perimeter):
    """The answer was given; what it said is committed to under no key, and the person has none."""
    bench = make_perimeter()
    bench.walk_bench.engine.gate = asyncio.Event()
    walk = bench.walk_bench
    running = await walk.walk.admit(walk.asking("r1", ALICE), completion())
    assert (await post(bench, "/audit/erasures", ERASE)).status_code == 200
    walk.engine.gate.set()
    given, error = await collect(running)
    assert error is None
    assert given
    admitted, terminal = (entry.leaf.event for entry in bench.reader.entries(EntryFilter(subject="r1")).entries)
    assert "subject_erased" not in admitted.facts
    assert (terminal.kind, terminal.facts["commitments"], terminal.facts["subject_erased"]) == (
        "request:completed",
        {},
        True,
    )
    assert bench.appliance.log.keyring.keys_of(key_subject("plant-1", "alice")).living == ()
    assert walk.verify().ok


# Holds


async def held(bench: PerimeterBench, **scope) -> int:
    """Place a hold; give its number."""
    answer = await post(bench, "/audit/holds", {**scope, "reason": "court order 7"})
    assert answer.status_code == 200, answer.text
    return answer.json()["hold"]


@pytest.mark.parametrize(
    "scope",
    [
        {"subject": "alice"},
        {"subject": "alice", "tenant": "plant-1"},
        {"subject": "Alice "},
        {"subject": "".join(chr(ord(letter) + 0xFEE0) for letter in "ALICE"), "tenant": "Plant-1"},
        {"tenant": "plant-1"},
        {"tenant": "PLANT-1"},
        {"first": 0, "last": 0},
        {"first": 0, "last": 10**6},
    ],
    ids=str,
)
async def test_a_hold_beats_erasure_under_any_spelling_and_the_refusal_is_recorded(make_perimeter, scope):
    """On the person, the tenant or entries of the person."""
    bench = make_perimeter()
    commitment = await has_asked(bench)
    hold = await held(bench, **scope)
    answer = await post(bench, "/audit/erasures", ERASE)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "under_hold")
    (refused,) = bench.reader.entries(EntryFilter(kind="act:refused")).entries
    assert refused.leaf.event.facts["held_by"] == [hold]
    assert answer.headers["x-cloister-receipt"].startswith(f"{refused.index}:")
    assert bench.appliance.log.keyring.check(commitment, "r1", "prompt", b'["Once"]')


@pytest.mark.parametrize(
    ("scope", "known"),
    [
        ({"subject": "alice"}, True),
        ({"subject": "Alice"}, False),
        ({"tenant": "plant-1"}, True),
        ({"tenant": "plant"}, False),
        ({"first": 0, "last": 9}, True),
        ({"first": 10**6, "last": 10**6}, False),
    ],
    ids=str,
)
async def test_a_hold_on_what_the_log_does_not_know_stands_and_says_so(make_perimeter, scope, known: bool):
    """A slip of the pen shows at once; a court that is sooner than the person is heard."""
    bench = make_perimeter()
    await has_asked(bench)
    answer = await post(bench, "/audit/holds", {**scope, "reason": "x"})
    assert (answer.status_code, answer.json()["known"]) == (200, known)
    assert [hold.index for hold in living_holds(bench.reader)] == [answer.json()["hold"]]


@pytest.mark.parametrize("scope", [{"subject": "alic"}, {"tenant": "plant-2"}, {"first": 100, "last": 200}], ids=str)
async def test_a_hold_on_something_else_keeps_nobody(make_perimeter, scope):
    """Another name, another tenant, entries of nobody."""
    bench = make_perimeter()
    await has_asked(bench)
    await held(bench, **scope)
    assert (await post(bench, "/audit/erasures", ERASE)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"first": 1},
        {"last": 1},
        {"first": 2, "last": 1},
        {"first": 0, "last": 1, "subject": "alice"},
        {"subject": ""},
        {"subject": "a\nb"},
        {"subject": "a" * 257},
        {"first": -1, "last": 1},
        {"tenant": 7},
    ],
    ids=str,
)
async def test_a_hold_without_one_clear_scope_is_refused(make_perimeter, body):
    """By name, before anything is recorded."""
    bench = make_perimeter()
    answer = await post(bench, "/audit/holds", {**body, "reason": "x"})
    assert answer.status_code == 400
    assert kinds(bench, "hold:placed") == []


async def test_a_hold_is_released_by_two_people_and_erasure_goes_on(make_perimeter):
    """Proposed by the officer, approved by the auditor; each step a leaf."""
    bench = make_perimeter()
    await has_asked(bench)
    hold = await held(bench, subject="alice")
    proposal = (await post(bench, f"/audit/holds/{hold}/release", {"reason": "order lifted"})).json()["proposal"]
    alone = await post(bench, f"/audit/releases/{proposal}/approve")
    assert (alone.status_code, alone.json()["error"]["code"]) == (403, "same_person")
    assert (await post(bench, "/audit/erasures", ERASE)).json()["error"]["code"] == "under_hold"
    released = await post(bench, f"/audit/releases/{proposal}/approve", role="auditor")
    assert (released.status_code, released.json()["released"]) == (200, hold)
    replayed = await post(bench, f"/audit/releases/{proposal}/approve", role="auditor")
    assert (replayed.status_code, replayed.json()["error"]["code"]) == (409, "proposal_taken_up")
    assert living_holds(bench.reader) == ()
    assert (await post(bench, "/audit/erasures", ERASE)).status_code == 200
    steps = ("hold:placed", "hold_release:proposed", "hold:released")
    assert kinds(bench, *steps) == list(steps)
    assert kinds(bench, "act:refused") == ["act:refused"] * 3


@pytest.mark.parametrize("fault", ["not_persisted", "persisted"])
async def test_a_release_is_its_leaf(make_perimeter, fault: Fault):
    """Fault pair at `hold:released`: the hold ends exactly when that leaf is durable, whatever the caller heard."""
    bench = make_perimeter()
    hold = await held(bench, subject="alice")
    proposal = (await post(bench, f"/audit/holds/{hold}/release", {"reason": "x"})).json()["proposal"]
    sink = bench.walk_bench.sink
    sink._fail_at, sink._fault = sink.num_appends, fault
    assert (await post(bench, f"/audit/releases/{proposal}/approve", role="auditor")).status_code == 503
    assert [one.index for one in living_holds(bench.reader)] == ([] if fault == "persisted" else [hold])
    assert bench.walk_bench.verify().ok


async def test_the_officers_second_key_is_no_second_person(make_perimeter):
    """Another key of the same owner, with the auditor's role and in another tenant."""
    bench = make_perimeter()
    bench.add_key("twin", 9, owner="Privacy", tenant="elsewhere", roles=("auditor",))
    hold = await held(bench, subject="alice")
    proposal = (await post(bench, f"/audit/holds/{hold}/release", {"reason": "x"})).json()["proposal"]
    answer = await post(bench, f"/audit/releases/{proposal}/approve", role="twin")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "same_person")
    assert len(living_holds(bench.reader)) == 1


async def test_what_is_no_proposal_of_this_kind_is_approved_by_nobody(make_perimeter):
    """A hold's own leaf, an index beyond the log."""
    bench = make_perimeter()
    hold = await held(bench, subject="alice")
    for index in (hold, 10**6):
        answer = await post(bench, f"/audit/releases/{index}/approve", role="auditor")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "proposal_not_found")
    for number in (hold + 1, 10**6):
        answer = await post(bench, f"/audit/holds/{number}/release", {"reason": "x"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "hold_not_found")


# Crash pairs: each of the two records fails, not persisted or persisted; then the log is opened again


def reopened(bench: PerimeterBench, *, stays_open: bool = False) -> list[str]:
    """Close everything, open it as a start does, finish what was decided; give the kinds of the erasure."""
    path, keys = bench.walk_bench.path, bench.appliance.log.keyring._file.path
    bench.close()
    writer = AuditWriter.open(WriterConfig(path, "node", "boot", min_free_bytes=0), [SIGNER])
    with AuditReader(path, [SIGNER.verifier]) as reader, SubjectKeyring(keys, bytes(32)) as keyring:
        asyncio.run(finish_after_restart(AuditTrail(writer, keyring, Clock(), trust="development"), reader, keyring))
        assert bool(open_erasures(reader)) == stays_open
        living = keyring.keys_of(key_subject("plant-1", "alice")).living
        found = [entry.leaf.event.kind for entry in reader.entries(limit=1000).entries]
    writer.close()
    assert verify_log(path, [SIGNER.verifier], None).ok
    erasure = [kind for kind in found if kind.startswith("subject:")]
    assert ("subject:erased" in erasure) == (living == ()), "recorded as done exactly when it is done"
    return erasure


@pytest.mark.parametrize("fault", ["not_persisted", "persisted"])
@pytest.mark.parametrize("step", ["erasing", "erased"])
def test_a_crash_at_any_record_leaves_no_half_erasure(make_perimeter, step: str, fault: Fault):
    """Neither an erasure without its record, nor a record of one that did not happen; the next start finishes."""
    bench = make_perimeter()

    async def run() -> int:
        await has_asked(bench)
        sink = bench.walk_bench.sink
        sink._fail_at = sink.num_appends + ("erasing", "erased").index(step)
        sink._fault = fault
        return (await post(bench, "/audit/erasures", ERASE)).status_code

    assert asyncio.run(run()) == 503
    expected = {
        ("erasing", "not_persisted"): [],
        ("erasing", "persisted"): ["subject:erasing", "subject:erased"],
        ("erased", "not_persisted"): ["subject:erasing", "subject:erased"],
        ("erased", "persisted"): ["subject:erasing", "subject:erased"],
    }
    assert reopened(bench) == expected[step, fault]


@pytest.mark.parametrize("is_persisted", [False, True])
def test_a_crash_while_the_key_is_destroyed_is_made_good(make_perimeter, monkeypatch, is_persisted: bool):
    """Destroyed or not, the record of the decision stands, and the next start does it again."""
    bench = make_perimeter()
    keyring = bench.appliance.log.keyring
    real = keyring.destroy

    def dies(key_ids):
        if is_persisted:
            real(key_ids)
        raise OSError(5, "Input/output error")

    async def run() -> int:
        await has_asked(bench)
        monkeypatch.setattr(keyring, "destroy", dies)
        return (await post(bench, "/audit/erasures", ERASE)).status_code

    assert asyncio.run(run()) >= 500
    monkeypatch.undo()
    assert reopened(bench) == ["subject:erasing", "subject:erased"]


async def test_a_file_that_refuses_is_owed_and_asking_again_finishes_it(make_perimeter):
    """503 says that it is decided; the next asking does not decide it a second time."""
    bench = make_perimeter()
    await has_asked(bench)
    keyring = bench.appliance.log.keyring
    with keyring._file._engine.connect() as connection:
        raw = connection.connection.dbapi_connection
    raw.execute("PRAGMA query_only=ON")
    answer = await post(bench, "/audit/erasures", ERASE)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "erasure_unfinished")
    raw.execute("PRAGMA query_only=OFF")
    assert (await post(bench, "/audit/erasures", ERASE)).status_code == 200
    assert kinds(bench, "subject:erasing", "subject:erased") == ["subject:erasing", "subject:erased"]


def test_a_hold_beats_an_erasure_that_is_decided_and_not_done(make_perimeter):
    """Asked again or started again, the key lives as long as the hold."""
    bench = make_perimeter()
    keyring = bench.appliance.log.keyring

    async def run() -> str:
        await has_asked(bench)
        with keyring._file._engine.connect() as connection:
            raw = connection.connection.dbapi_connection
        raw.execute("PRAGMA query_only=ON")
        assert (await post(bench, "/audit/erasures", ERASE)).status_code == 503
        raw.execute("PRAGMA query_only=OFF")
        await held(bench, subject="alice")
        return (await post(bench, "/audit/erasures", ERASE)).json()["error"]["code"]

    assert asyncio.run(run()) == "under_hold"
    assert reopened(bench, stays_open=True) == ["subject:erasing"]


def test_an_older_key_file_brings_nobody_back(make_perimeter):
    """A backup of the keys beside a newer log is cleaned at the start, and that is recorded."""
    bench = make_perimeter()
    keys = bench.appliance.log.keyring._file.path

    async def run() -> bytes:
        await has_asked(bench)
        bench.appliance.log.keyring._file.empty_write_ahead_log()
        backup = keys.read_bytes()
        assert (await post(bench, "/audit/erasures", ERASE)).status_code == 200
        return backup

    backup = asyncio.run(run())
    path = bench.walk_bench.path
    bench.close()
    keys.write_bytes(backup)
    writer = AuditWriter.open(WriterConfig(path, "node", "boot", min_free_bytes=0), [SIGNER])
    with AuditReader(path, [SIGNER.verifier]) as reader, SubjectKeyring(keys, bytes(32)) as keyring:
        trail = AuditTrail(writer, keyring, Clock(), trust="development")
        for _ in range(2):
            asyncio.run(finish_after_restart(trail, reader, keyring))
        assert keyring.keys_of(key_subject("plant-1", "alice")).living == ()
        done = reader.entries(EntryFilter(kind="subject:erased")).entries
    writer.close()
    assert [entry.leaf.event.facts["why"] for entry in done] == ["asked", "older_key_file"]


def test_a_start_after_finished_erasures_writes_nothing(make_perimeter):
    """Neither to the log nor to the keys' file, which another process may hold meanwhile."""
    bench = make_perimeter()

    async def run() -> None:
        await has_asked(bench)
        assert (await post(bench, "/audit/erasures", ERASE)).status_code == 200
        keyring, size = bench.appliance.log.keyring, bench.appliance.log_size()
        with closing(sqlite3.connect(keyring._file.path, isolation_level=None)) as foreign:
            foreign.execute("BEGIN IMMEDIATE")
            await finish_after_restart(bench.appliance.trail, bench.reader, keyring)
        assert bench.appliance.log_size() == size

    asyncio.run(run())


# The certificate


async def certificate(bench: PerimeterBench) -> dict:
    """A good one."""
    await has_asked(bench)
    return json.loads((await post(bench, "/audit/erasures", ERASE)).content)


CHANGES = {
    "another subject": lambda body: body["says"].update(subject="bob"),
    "another key": lambda body: body["says"]["key_ids"].append("0" * 32),
    "another time": lambda body: body["says"].update(erased_at_us=1),
    "more checked": lambda body: body["says"]["checked"].update(keys_searched_for=9),
    "one claim more": lambda body: body["says"].update(backups="destroyed"),
    "another leaf": lambda body: body.update(leaf=body["leaf"].replace("alice", "malic")),
    "no proof": lambda body: body.update(proof=""),
    "another format": lambda body: body.update(format="x"),
    "another member": lambda body: body.update(note="x"),
    "leaf of another type": lambda body: body.update(leaf=7),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_changed_certificate_is_refused(make_perimeter, change):
    """Whatever it says must be what the proven leaf says."""
    body = await certificate(make_perimeter())
    check_certificate(json.dumps(body).encode(), SIGNER.verifier)
    change(body)
    with pytest.raises(ProofRefused):
        check_certificate(json.dumps(body).encode(), SIGNER.verifier)


async def test_a_certificate_of_another_log_or_of_another_leaf_is_refused(make_perimeter):
    """The key alone decides; and a proof of `subject:erasing` certifies nothing."""
    bench = make_perimeter()
    body = await certificate(bench)
    other = LogSigner.from_seed(SIGNER.name, bytes(32))
    with pytest.raises(ProofRefused):
        check_certificate(json.dumps(body).encode(), other.verifier)
    (erasing,) = bench.reader.entries(EntryFilter(kind="subject:erasing")).entries
    swapped = {
        **body,
        "leaf": erasing.leaf_bytes.decode(),
        "proof": bench.reader.proof(erasing.index).to_text(),
    }
    with pytest.raises(ProofRefused, match="subject:erased"):
        check_certificate(json.dumps(swapped).encode(), SIGNER.verifier)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b"{" * 10_000, b"null"])
def test_what_is_no_certificate_is_refused(content: bytes):
    """By one error of ours."""
    with pytest.raises(ProofRefused):
        check_certificate(content, SIGNER.verifier)
