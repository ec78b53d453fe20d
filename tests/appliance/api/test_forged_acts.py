"""Whoever masters the log's database is no second person: a leaf that was exchanged, hash and all, decides nothing.

The forger owns every row and has neither the log's key nor the subjects' keys.  Reading shows what he put there, and
the verifier finds it; an act on it is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from audit_log_builder import attacker
from perimeter_bench import PerimeterBench
from walk_bench import SIGNER, collect, completion

from appliance.audit_trail import AuditTrail, Clock, Kind, key_subject
from appliance.identity.principal import Principal
from appliance.keeping.erasure import erasing_facts, finish_after_restart
from appliance.keeping.holds import Person
from appliance.keeping.retention import newest_approved
from appliance.two_person import approval_facts, read_proposal
from audit.errors import AuditCorrupt
from audit.event import Event, JsonValue
from audit.leaf import decode_leaf, draft_leaf
from audit.merkle import leaf_hash
from audit.reader import AuditReader, EntryFilter
from audit.writer import AuditWriter, WriterConfig
from policies.bundle import load_bundle, read_source_bundle

ALICE = Principal("alice", "User", "plant-1", ("developer",), 2, "key-alice")
ERASE = {"subject": "alice", "reason": "case 12"}
OFFICER = Principal("privacy", "User", "plant-1", ("privacy",), 0, "key-p")


async def post(bench: PerimeterBench, path: str, body=None, role: str = "auditor"):
    """Ask with one role's key."""
    async with bench.client(role) as client:
        return await client.post(path, json=body)


async def asked(bench: PerimeterBench) -> int:
    """Let a person have a request answered; give the index of its admission."""
    walk = bench.walk_bench
    _, error = await collect(await walk.walk.admit(walk.asking("r1", ALICE), completion()))
    assert error is None
    return bench.reader.entries(EntryFilter(subject="r1")).entries[0].index


async def sealed_and_proposed(bench: PerimeterBench) -> tuple[int, int]:
    """Have a request sealed, and its unsealing proposed by the auditor; give the entry's index and the proposal's."""
    source = dict(read_source_bundle())
    name = "base/20-models.cedar"
    source[name] = source[name].replace(b'@log_level("commitments")', b'@log_level("encrypted")')
    files = {name: content for name, content in source.items() if not name.startswith("tests/")}
    bench.walk_bench.walk._gate._engine = load_bundle(files)
    index = await asked(bench)
    answer = await post(bench, f"/audit/entries/{index}/unseal", {"reason": "incident 3"})
    assert answer.status_code == 200, answer.text
    return index, answer.json()["proposal"]


async def some_leaf(bench: PerimeterBench) -> int:
    """Have a leaf written that nobody will miss; give its index."""
    async with bench.client("auditor") as client:
        assert (await client.get("/audit/entries/0")).status_code == 200
    return bench.reader.head().checkpoint.size - 1


@contextmanager
def forged(
    bench: PerimeterBench, index: int, kind: Kind, who: Principal, subject: str, facts: dict[str, JsonValue]
) -> Iterator[None]:
    """Put another leaf in the place of one, hash and columns with it; take it back at the end."""
    true = bench.reader.entry(index)
    at_us, at_ns = true.leaf.event.ts_us, true.leaf.event.monotonic_ns
    event = Event(kind.value, at_us, at_ns, who.id, ",".join(who.roles), who.tenant, subject, facts)
    leaf_bytes = draft_leaf(event, true.leaf.place).encode(index, true.leaf.head)
    columns = ("leaf_bytes", "leaf_hash", "kind", "actor", "role", "tenant", "subject", "outcome")
    change = f"UPDATE leaf SET {', '.join(f'{name} = ?' for name in columns)} WHERE idx = ?"
    projected = decode_leaf(leaf_bytes).columns()
    with attacker(bench.walk_bench.path) as rows:
        wanted = f"SELECT {', '.join(columns)} FROM leaf WHERE idx = ?"
        [before] = rows.execute(wanted, (index,)).fetchall()
        rows.execute(change, (leaf_bytes, leaf_hash(leaf_bytes), *(projected[name] for name in columns[2:]), index))
    with AuditReader(bench.walk_bench.path) as reader:
        assert reader.entry(index).leaf.event.kind == kind.value
    try:
        yield
    finally:
        with attacker(bench.walk_bench.path) as rows:
            rows.execute(change, (*before, index))


def refused(answer) -> tuple[int, str]:
    """Status and code."""
    return answer.status_code, answer.json()["error"]["code"]


async def test_an_approval_written_into_the_database_unseals_nothing(make_perimeter):
    """The auditor and the database's master together read nothing; the true officer's word is still heard."""
    bench = make_perimeter()
    _, proposal = await sealed_and_proposed(bench)
    spare = await some_leaf(bench)
    entry = bench.reader.entry(proposal)
    facts = {**approval_facts(read_proposal(entry)), "key_id": OFFICER.key_id}
    with forged(bench, spare, Kind.UNSEAL_APPROVED, OFFICER, entry.leaf.event.subject, facts):
        shown = await post(bench, f"/audit/unsealings/{proposal}/show")
        assert refused(shown) == (503, "log_unavailable")
    assert (await post(bench, f"/audit/unsealings/{proposal}/approve", role="privacy")).status_code == 200
    assert (await post(bench, f"/audit/unsealings/{proposal}/show")).status_code == 200
    assert bench.walk_bench.verify().ok


async def test_a_proposal_written_into_the_database_is_nothing_to_approve(make_perimeter):
    """One officer does not approve what nobody proposed."""
    bench = make_perimeter()
    index, _ = await sealed_and_proposed(bench)
    spare = await some_leaf(bench)
    auditor = Principal("avery", "User", "plant-1", ("auditor",), 0, "key-a")
    facts: dict[str, JsonValue] = {
        "key_id": "key-a",
        "proposer_kind": "User",
        "reason": "x",
        "terms": {"index": index, "phases": ["prompt"]},
    }
    with forged(bench, spare, Kind.UNSEAL_PROPOSED, auditor, "req-forged", facts):
        answer = await post(bench, f"/audit/unsealings/{spare}/approve", role="privacy")
        assert refused(answer) == (503, "log_unavailable")
    assert bench.walk_bench.verify().ok


async def test_a_release_written_into_the_database_ends_no_hold(make_perimeter):
    """The officer and the database's master together erase nobody under hold."""
    bench = make_perimeter()
    await asked(bench)
    hold = (await post(bench, "/audit/holds", {"subject": "alice", "reason": "court"}, "privacy")).json()["hold"]
    spare = await some_leaf(bench)
    with forged(bench, spare, Kind.HOLD_RELEASED, OFFICER, "req-forged", {"hold_index": hold}):
        assert refused(await post(bench, "/audit/erasures", ERASE, "privacy")) == (503, "log_unavailable")
    assert refused(await post(bench, "/audit/erasures", ERASE, "privacy")) == (409, "under_hold")
    assert bench.walk_bench.verify().ok


async def test_a_hold_rewritten_in_the_database_still_holds(make_perimeter):
    """Its scope was changed to somebody else: nothing is erased on that word."""
    bench = make_perimeter()
    await asked(bench)
    hold = (await post(bench, "/audit/holds", {"subject": "alice", "reason": "court"}, "privacy")).json()["hold"]
    facts: dict[str, JsonValue] = {"held_subject": "mallory", "held_tenant": "plant-1", "reason": "court"}
    with forged(bench, hold, Kind.HOLD_PLACED, OFFICER, bench.reader.entry(hold).leaf.event.subject, facts):
        assert refused(await post(bench, "/audit/erasures", ERASE, "privacy")) == (503, "log_unavailable")
    assert bench.walk_bench.verify().ok


async def test_a_lower_floor_written_into_the_database_is_not_believed(make_perimeter):
    """Neither an approval nor a statement of a floor."""
    bench = make_perimeter()
    spare = await some_leaf(bench)
    with (
        forged(bench, spare, Kind.RETENTION_LOWERED, OFFICER, "req-forged", {"profiles": ["pci"]}),
        pytest.raises(AuditCorrupt, match=f"entry {spare}"),
    ):
        newest_approved(bench.reader)


def test_an_erasure_written_into_the_database_destroys_no_key_at_the_next_start(make_perimeter):
    """The master of the database alone erases nobody: the start is refused, and the key lives."""
    bench = make_perimeter()
    path, keyring = bench.walk_bench.path, bench.appliance.log.keyring

    async def prepare() -> int:
        await asked(bench)
        spare = await some_leaf(bench)
        await some_leaf(bench)  # the newest leaf is part of the head that an opening proves
        return spare

    spare = asyncio.run(prepare())
    living = keyring.keys_of(key_subject(ALICE.tenant, ALICE.id)).living
    assert living
    bench.walk_bench.writer.close()

    async def start(reader: AuditReader) -> None:
        writer = AuditWriter.open(WriterConfig(path, "node", "boot", min_free_bytes=0), [SIGNER])
        try:
            trail = AuditTrail(writer, keyring, Clock(), trust="development")
            await finish_after_restart(trail, reader, keyring)
        finally:
            writer.close()

    facts = erasing_facts(Person(ALICE.tenant, ALICE.id), living, "x")
    with AuditReader(path, [SIGNER.verifier]) as reader:
        with forged(bench, spare, Kind.SUBJECT_ERASING, OFFICER, ALICE.id, facts), pytest.raises(AuditCorrupt):
            asyncio.run(start(reader))
        assert keyring.keys_of(key_subject(ALICE.tenant, ALICE.id)).living == living
        asyncio.run(start(reader))
    assert keyring.keys_of(key_subject(ALICE.tenant, ALICE.id)).living == living
