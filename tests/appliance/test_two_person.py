"""The law of two people, attack by attack; the state of an act comes from leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.audit_trail import Kind
from appliance.identity.principal import Principal
from appliance.keeping.names import folded, same_name
from appliance.two_person import (
    Approvable,
    NotApprovable,
    TwoPersonAct,
    approval_facts,
    judge,
    proposal_facts,
    read_proposal,
)
from audit.entry import Entry
from audit.event import Event
from audit.leaf import Leaf, Place

ACT = TwoPersonAct("unseal", Kind.UNSEAL_PROPOSED, Kind.UNSEAL_APPROVED, 3600, one_role_each=("auditor", "privacy"))
AVERY = Principal("avery", "User", "plant", ("auditor",), 0, "key-a")
PRIYA = Principal("priya", "User", "plant", ("privacy",), 0, "key-p")
T0_US = 1_800_000_000_000_000


def leaf(index: int, kind: Kind, who: Principal, facts, at_us: int = T0_US) -> Entry:
    """An entry as the reader gives it."""
    event = Event(kind.value, at_us, 1, who.id, ",".join(who.roles), who.tenant, "req-1", facts)
    return Entry(index, Leaf(index, index, Place("n", "b", 1), event), b"", b"")


def proposed(who: Principal = AVERY) -> Entry:
    """A proposal at T0."""
    return leaf(7, ACT.proposed, who, {"key_id": who.key_id, **proposal_facts(who, {"index": 3}, "case 12")})


def judged(
    first: Principal,
    second: Principal,
    *later: Entry,
    now_us: int = T0_US + 1,
    act: TwoPersonAct = ACT,
    first_key_lives: bool = True,
):
    """The outcome's code, or `approvable`."""
    outcome = judge(act, (proposed(first), *later), second, now_us, first_key_lives=first_key_lives)
    return outcome.code if isinstance(outcome, NotApprovable) else "approvable"


@pytest.mark.parametrize(("first", "second"), [(AVERY, PRIYA), (PRIYA, AVERY)])
def test_an_auditor_and_a_privacy_officer_can_in_either_order(first, second):
    """And the approver sees the terms as they were proposed."""
    outcome = judge(ACT, (proposed(first),), second, T0_US, first_key_lives=True)
    assert isinstance(outcome, Approvable)
    assert outcome.proposal.proposer == replace(first, clearance=0)
    assert approval_facts(outcome.proposal)["terms"] == {"index": 3}
    assert approval_facts(outcome.proposal)["proposal_index"] == 7


@pytest.mark.parametrize(
    "name",
    [
        "avery",
        "Avery",
        " avery ",
        "AVERY",
        "a\u200bvery",
        "".join(chr(ord(letter) + 0xFEE0) for letter in "avery"),
        "avery\u0000",
    ],
)
def test_one_person_with_two_keys_is_one_person(name):
    """Two keys of one owner, whatever the spelling, the tenant and the roles of the second."""
    twin = Principal(name, "User", "other", ("privacy",), 0, "key-2")
    assert judged(AVERY, twin) == "same_person"


def test_one_key_is_one_person_whatever_owner_it_has_now():
    """The record of a key was changed between the two steps."""
    assert judged(AVERY, replace(PRIYA, key_id=AVERY.key_id)) == "same_person"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (PRIYA, replace(PRIYA, id="quinn", key_id="key-q")),
        (AVERY, replace(AVERY, id="quinn", key_id="key-q")),
        (AVERY, replace(AVERY, id="quinn", key_id="key-q", roles=("developer",))),
        (replace(AVERY, roles=()), PRIYA),
    ],
)
def test_two_people_of_one_role_do_not_unseal(first, second):
    """One brings `auditor`, the other `privacy`."""
    assert judged(first, second) == "roles_missing"


def test_where_no_roles_are_named_policy_alone_says_who():
    """The pair of roles belongs to the act."""
    act = replace(ACT, one_role_each=None)
    assert judged(PRIYA, replace(PRIYA, id="quinn", key_id="key-q"), act=act) == "approvable"


@pytest.mark.parametrize("services", [(True, False), (False, True), (True, True)])
def test_a_service_is_nobodys_second_person(services):
    """Neither as the first nor as the second."""
    first, second = (
        replace(who, kind="Service" if service else "User")
        for who, service in zip((AVERY, PRIYA), services, strict=True)
    )
    assert judged(first, second) == "not_a_person"


def test_a_replayed_approval_is_refused():
    """Once taken up, a proposal is spent, also for a third person."""
    taken = leaf(8, ACT.approved, PRIYA, approval_facts(read_proposal(proposed())))
    assert judged(AVERY, PRIYA, taken) == "proposal_taken_up"
    assert judged(AVERY, replace(PRIYA, id="quinn", key_id="key-q"), taken) == "proposal_taken_up"


@pytest.mark.parametrize(("after_us", "code"), [(3_600_000_000 - 1, "approvable"), (3_600_000_000, "proposal_expired")])
def test_a_proposal_ends_with_its_time(after_us, code):
    """Open at its beginning, shut at its end."""
    assert judged(AVERY, PRIYA, now_us=T0_US + after_us) == code


def test_a_clock_that_went_back_approves_nothing():
    """A proposal of the future is none."""
    assert judged(AVERY, PRIYA, now_us=T0_US - 1) == "proposal_expired"


def test_the_word_of_a_key_that_ended_counts_no_more():
    """Stolen and revoked, say, after it had proposed."""
    assert judged(AVERY, PRIYA, first_key_lives=False) == "key_ended"


def test_other_leaves_of_the_act_spend_nothing():
    """A refusal on the way leaves the proposal as it was."""
    assert judged(AVERY, PRIYA, leaf(8, Kind.ACT_REFUSED, PRIYA, {"proposal_index": 7})) == "approvable"


@given(st.text())
def test_folding_is_stable(name):
    """Folded once, folded for good; so equality under it is an equivalence."""
    assert folded(folded(name)) == folded(name)
    assert same_name(name, folded(name))


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1),
    st.sampled_from([" ", "\t", "\u00a0", "\u200b", "\u2060"]),
)
def test_blanks_and_invisible_marks_around_a_name_change_nobody(name, blank):
    """As somebody would write them to slip by a hold."""
    assert same_name(f"{blank}{name}{blank}", name)
