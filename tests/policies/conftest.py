"""The delivered bundle, its engine, and questions to start from."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from policy_questions import infer_facts

from policies.bundle import load_bundle, read_source_bundle
from policies.cedar import PolicyEngine
from policies.decision import Facts


@pytest.fixture(scope="session")
def source_bundle() -> Mapping[str, bytes]:
    """The files of this release."""
    return read_source_bundle()


@pytest.fixture(scope="session")
def engine(source_bundle) -> PolicyEngine:
    """The delivered policies, proven as at every start."""
    return load_bundle(source_bundle)


@pytest.fixture
def allowed() -> Facts:
    """A question that the delivered policies allow."""
    return infer_facts()
