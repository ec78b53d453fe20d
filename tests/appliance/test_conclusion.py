"""How a request of several choices ended: one conclusion, the gravest."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.audit_trail import PAIRING, Kind
from appliance.conclusion import ENGINE_CODES, conclude
from appliance.errors import GenerationFailed, Overloaded, Unavailable

FULL = Overloaded("full", code="queue_full", retry_after_s=1)
WELL, ENGINE_DIED, BROKEN, NAMELESS = (
    SimpleNamespace(failed=False, error=None),
    SimpleNamespace(failed=True, error="engine_died"),
    SimpleNamespace(failed=True, error="nan_logits"),
    SimpleNamespace(failed=True, error=None),
)


def ended(*choices: SimpleNamespace, failure=None, abandoned=None) -> SimpleNamespace:
    """A request as `conclude` sees it."""
    return SimpleNamespace(choices=choices, failure=failure, abandoned=abandoned)


@pytest.mark.parametrize(
    ("running", "kind", "outcome", "error", "code"),
    [
        pytest.param(ended(WELL, WELL), Kind.REQUEST_COMPLETED, "completed", type(None), None, id="well"),
        pytest.param(
            ended(WELL, abandoned="client_closed"),
            *(Kind.REQUEST_CANCELLED, "cancelled", Unavailable, "client_closed"),
            id="nobody waits",
        ),
        pytest.param(
            ended(WELL, ENGINE_DIED), *(Kind.REQUEST_FAILED, "failed", Unavailable, "engine_died"), id="engine lost"
        ),
        pytest.param(
            ended(BROKEN, WELL), *(Kind.REQUEST_FAILED, "failed", GenerationFailed, "nan_logits"), id="one choice broke"
        ),
        pytest.param(
            ended(NAMELESS), *(Kind.REQUEST_FAILED, "failed", GenerationFailed, "engine_error"), id="without a code"
        ),
        pytest.param(
            ended(BROKEN, abandoned="client_closed"),
            *(Kind.REQUEST_FAILED, "failed", GenerationFailed, "nan_logits"),
            id="broke and nobody waits",
        ),
        pytest.param(
            ended(BROKEN, failure=FULL, abandoned="client_closed"),
            *(Kind.REQUEST_FAILED, "failed", Overloaded, "queue_full"),
            id="turned away",
        ),
    ],
)
def test_an_error_outweighs_a_cancellation_and_that_outweighs_success(running, kind, outcome, error, code):
    """The record says the gravest thing that happened, and the caller hears the same."""
    conclusion = conclude(running)
    assert (conclusion.kind, conclusion.outcome, conclusion.code) == (kind, outcome, code)
    assert isinstance(conclusion.error, error)


@given(
    choices=st.lists(st.sampled_from([WELL, ENGINE_DIED, BROKEN, NAMELESS]), min_size=1, max_size=16),
    failure=st.sampled_from([None, FULL]),
    abandoned=st.sampled_from([None, "client_closed", "appliance_stopping"]),
)
def test_every_end_is_a_terminal_kind_and_only_a_whole_answer_has_no_error(choices, failure, abandoned):
    """Law: one request has one conclusion, of a kind that ends an admission."""
    conclusion = conclude(ended(*choices, failure=failure, abandoned=abandoned))
    assert conclusion.kind.value in PAIRING.terminals
    is_whole = failure is None and abandoned is None and all(not choice.failed for choice in choices)
    assert (conclusion.error is None) == is_whole == (conclusion.kind is Kind.REQUEST_COMPLETED)
    assert isinstance(conclusion.error, Unavailable) or conclusion.code not in ENGINE_CODES
