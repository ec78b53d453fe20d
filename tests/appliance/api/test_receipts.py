"""A client keeps a receipt and proves its own request by it; nobody else's."""

from __future__ import annotations

import pytest
from audit_log_builder import OTHER_SIGNER
from walk_bench import SIGNER

from appliance.receipt_text import KeptReceipt, ReceiptMalformed
from audit.errors import ProofRefused
from audit.proof import EntryProof
from audit.reader import EntryFilter

BODY = {"model": "starter", "prompt": "Hello", "max_tokens": 2}
MALFORMED = (
    "7",
    "7:",
    ":" + "a" * 64,
    "07:" + "a" * 64,
    "7:" + "A" * 64,
    "7:" + "a" * 63,
    "-1:" + "a" * 64,
    "7:" + "a" * 64 + "\n",
)


async def _ask(bench) -> str:
    async with bench.client("developer") as client:
        answer = await client.post("/v1/completions", json=BODY)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-cloister-receipt"]


async def test_a_receipt_s_owner_gets_a_proof_that_needs_the_public_key_alone(make_perimeter):
    """The proof holds for the receipt's hash under the log's key, for no other hash and under no other key."""
    bench = make_perimeter()
    receipt = await _ask(bench)
    async with bench.client("developer") as client:
        answer = await client.get(f"/audit/receipts/{receipt}/proof")
    kept, proof = KeptReceipt.from_text(receipt), EntryProof.from_text(answer.text)
    verifier = SIGNER.verifier
    assert proof.index == kept.index
    assert proof.verify_hash(kept.leaf_hash, [verifier]).size > kept.index
    with pytest.raises(ProofRefused):
        proof.verify_hash(bytes(32), [verifier])
    with pytest.raises(ProofRefused):
        proof.verify_hash(kept.leaf_hash, [OTHER_SIGNER.verifier])
    (read,) = bench.reader.entries(EntryFilter(kind="log:read")).entries
    assert (read.leaf.event.actor, read.leaf.event.facts["what"]) == ("developer", "receipt")


async def test_somebody_else_s_receipt_and_none_at_all_look_the_same(make_perimeter):
    """A record of another actor, a wrong hash and an index past the end: one and the same 404."""
    bench = make_perimeter()
    own = KeptReceipt.from_text(await _ask(bench))
    async with bench.client("auditor") as client:
        others = (await client.get("/audit/checkpoint")).headers["x-cloister-receipt"]
    receipts = (others, f"{own.index}:{'0' * 64}", f"999:{own.leaf_hash.hex()}")
    async with bench.client("developer") as client:
        answers = [await client.get(f"/audit/receipts/{receipt}/proof") for receipt in receipts]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].json()["error"]["code"] == "entry_not_found"


async def test_the_same_name_in_another_tenant_proves_nothing(make_perimeter):
    """Owner means tenant and name together."""
    bench = make_perimeter()
    receipt = await _ask(bench)
    bench.add_key("stranger", 7, owner="developer", tenant="plant-2", roles=("developer",))
    async with bench.client("stranger") as client:
        assert (await client.get(f"/audit/receipts/{receipt}/proof")).status_code == 404


@pytest.mark.parametrize("role", ["auditor", "operator"])
async def test_who_does_not_infer_has_no_receipts_to_prove(make_perimeter, role: str):
    """Policy denies it; the auditor proves any entry by its own route."""
    bench = make_perimeter()
    receipt = await _ask(bench)
    async with bench.client(role) as client:
        assert (await client.get(f"/audit/receipts/{receipt}/proof")).status_code == 403


@pytest.mark.parametrize("text", MALFORMED)
def test_only_the_form_that_answers_carry_is_a_receipt(text: str):
    """No second spelling of one receipt."""
    with pytest.raises(ReceiptMalformed):
        KeptReceipt.from_text(text)


async def test_a_malformed_receipt_is_the_caller_s_fault(make_perimeter):
    """400 that names it."""
    bench = make_perimeter()
    async with bench.client("developer") as client:
        answer = await client.get("/audit/receipts/7/proof")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "receipt")
