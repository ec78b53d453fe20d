"""Refused credentials: recorded, but a flood of them cannot fill the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from identity_keys import PEPPER
from walk_bench import Fault, WalkBench

from appliance.api.doorkeeper import REFUSALS_AT_ONCE, REFUSALS_PER_S, Doorkeeper, RefusalBudget
from appliance.audit_trail import AuditTrail, Clock
from appliance.errors import Unauthenticated
from appliance.identity.authenticate import Authenticator
from appliance.identity.key_store import KeyStore
from audit.errors import AuditQueueFull
from audit.event import Event, Receipt
from audit.subject_keys.keyring import SubjectKeyring


@settings(deadline=None)
@given(knocks=st.lists(st.tuples(st.floats(0, 0.5), st.booleans()), min_size=1, max_size=300))
def test_refusals_are_all_counted_and_few_are_recorded(knocks: list[tuple[float, bool]]):
    """Law: recorded + left out = refused, whether the log takes a record or not, and the rate holds."""
    budget, now, recorded, suppressed = RefusalBudget(), 0.0, 0, 0
    for gap, is_log_broken in knocks:
        now += gap
        left_out = budget.take(now)
        if left_out is None:
            continue
        if is_log_broken:
            budget.return_unrecorded(left_out)
        else:
            recorded += 1
            suppressed += left_out
    assert recorded + suppressed + budget.num_suppressed == len(knocks)
    assert recorded <= REFUSALS_AT_ONCE + REFUSALS_PER_S * now + 1


class CrowdedSink:
    """A log whose queue is full for the first appends; it remembers what it took."""

    def __init__(self, num_refused: int) -> None:
        self.events: list[Event] = []
        self._num_refused = num_refused

    async def append(self, event: Event, contents: object = ()) -> Receipt:  # noqa: ARG002 - the sink's shape
        """Take the event, or say why not."""
        if self._num_refused:
            self._num_refused -= 1
            raise AuditQueueFull(1)
        self.events.append(event)
        return Receipt(0, "0" * 64, 1)


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyStore]:
    """A key database without a key: everybody is a stranger."""
    store = KeyStore.create(tmp_path / "keys.db")
    yield store
    store.close()


async def _knock(trail: AuditTrail, keys: KeyStore, times: int = 1) -> list[Unauthenticated]:
    doorkeeper = Doorkeeper(Authenticator(keys, [PEPPER], lambda _record, _day: None), trail)
    heard = []
    for number in range(times):
        with pytest.raises(Unauthenticated) as refusal:
            await doorkeeper.admit([], b"", request_id=f"r{number}", handler="/v1/models", source="127.0.0.1")
        heard.append(refusal.value)
    return heard


async def test_a_refused_credential_has_its_receipt(tmp_path: Path, keys: KeyStore):
    """The 401 names the leaf that says so."""
    bench = WalkBench(tmp_path)
    (heard,) = await _knock(bench.trail, keys)
    assert heard.receipt is not None
    event = bench.reader.entry(heard.receipt.index).leaf.event
    bench.close()
    assert (event.kind, event.subject, event.facts["code"]) == ("auth:refused", "r0", "missing_credential")


@pytest.mark.parametrize("fault", ["not_persisted", "persisted"])
async def test_a_stranger_hears_the_same_401_while_the_log_is_halted(tmp_path: Path, keys: KeyStore, fault: Fault):
    """DESIGN 7.1 in every state of the log: no 503 that tells a stranger about it, and no receipt that is not known."""
    bench = WalkBench(tmp_path, fail_at=0, fault=fault)
    heard = await _knock(bench.trail, keys, times=3)
    assert {(one.code, one.receipt, one.recorded) for one in heard} == {("missing_credential", None, True)}
    kinds = bench.kinds("r0")
    is_sound = bench.verify().ok
    bench.close()
    assert kinds == ([] if fault == "not_persisted" else ["auth:refused"])
    assert is_sound


async def test_a_refusal_that_found_the_queue_full_stands_in_the_next_record(tmp_path: Path, keys: KeyStore):
    """What could not be recorded is counted in the first record that can be."""
    keyring = SubjectKeyring.create(tmp_path / "subjects.db", bytes(32))
    sink = CrowdedSink(2)
    await _knock(AuditTrail(sink, keyring, Clock(), trust="development"), keys, times=3)
    keyring.close()
    assert [event.facts["num_suppressed"] for event in sink.events] == [2]
