"""The fail-closed adapter over Cedar: Facts in, Allow or Deny out, always.

Cedar itself skips a policy that fails while it is evaluated, also a forbid, and answers Allow when another policy
permits.  Hence the one rule of this file: an Allow needs a decision of Allow, no error of any kind, and reasons that
are all permits of this very bundle.  Everything else is a Deny.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from types import MappingProxyType
from typing import Final

import cedarpy

from policies.actions import ACTIONS
from policies.decision import Allow, Deny, Facts, Obligations
from policies.obligations import strictest
from policies.slice import build_slice

MAX_ERRORS: Final = 16
MAX_ERROR_CHARS: Final = 512
"""An error text of Cedar may quote the whole slice; the record that carries it is bounded."""


class PolicyEngine:
    """One loaded bundle.

    Immutable once built, so any thread may decide with it and a reload swaps one reference.  Its caller records every
    Deny with reason `policy_error`: it means that policy could not be asked, not that policy said no.
    """

    def __init__(
        self,
        *,
        schema: cedarpy.Schema,
        policies: cedarpy.PolicySet,
        permits: Mapping[str, Obligations],
        forbids: frozenset[str],
        policy_digest: str,
    ) -> None:
        self._schema = schema
        self._policies = policies
        self._permits = MappingProxyType(dict(permits))
        self._forbids = forbids
        self._policy_digest = policy_digest

    @property
    def policy_digest(self) -> str:
        """SHA-256 of the bundle, 64 hexadecimal digits."""
        return self._policy_digest

    @property
    def policy_ids(self) -> tuple[str, ...]:
        """The `@id` of every policy, sorted."""
        return tuple(sorted({*self._permits, *self._forbids}))

    @property
    def engine_version(self) -> str:
        """The library that decides, for the record of what was loaded."""
        return f"cedarpy {version('cedarpy')}"

    def decide(self, facts: Facts) -> Allow | Deny:
        """Answer one question; never raises, whatever the facts are."""
        try:
            return self._decide(facts)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as failure:  # noqa: BLE001 - a panic in the library is no Exception, and must deny too
            return self._error(f"{type(failure).__name__}: {failure}")

    def _decide(self, facts: Facts) -> Allow | Deny:
        if facts.action not in ACTIONS:
            return Deny("unknown_action", (), self._policy_digest, _bounded([f"unknown action {facts.action!a}"]))
        question = build_slice(facts)
        answer = cedarpy.is_authorized(
            question.request, self._policies, json.dumps(question.entities), schema=self._schema
        )
        reasons = tuple(sorted(answer.diagnostics.reasons))
        errors = [str(error) for error in answer.diagnostics.errors]
        if errors:
            return self._error(*errors, policy_ids=reasons)
        match answer.decision:
            case cedarpy.Decision.Allow:
                return self._allow(reasons)
            case cedarpy.Decision.Deny:
                return self._deny(reasons)
            case other:
                return self._error(f"no decision: {other}", policy_ids=reasons)

    def _allow(self, reasons: tuple[str, ...]) -> Allow | Deny:
        unknown = [reason for reason in reasons if reason not in self._permits]
        if unknown or not reasons:
            return self._error(f"allowed by no known permit: {reasons}", policy_ids=reasons)
        return Allow(strictest(self._permits[reason] for reason in reasons), reasons, self._policy_digest)

    def _deny(self, reasons: tuple[str, ...]) -> Deny:
        unknown = [reason for reason in reasons if reason not in self._forbids]
        if unknown:
            return self._error(f"forbidden by no known forbid: {unknown}", policy_ids=reasons)
        return Deny("forbidden" if reasons else "no_permit", reasons, self._policy_digest)

    def _error(self, *errors: str, policy_ids: tuple[str, ...] = ()) -> Deny:
        return Deny("policy_error", policy_ids, self._policy_digest, _bounded(errors))


def _bounded(errors: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(error[:MAX_ERROR_CHARS] for error in errors[:MAX_ERRORS])
