"""What the tests of the engine's pure half share."""

from __future__ import annotations

import pytest
from contract_runner import ContractCore, build_contract_core
from core_scenarios import core_config


@pytest.fixture
def contract_core() -> ContractCore:
    """A core with the small configuration of `core_config`, over a runner that enforces its contract."""
    return build_contract_core(core_config())
