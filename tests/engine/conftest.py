"""What the tests of the engine share: a core over a contract, and real models as folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from contract_runner import ContractCore, build_contract_core
from core_scenarios import core_config

from engine.weights import llama2c


@pytest.fixture
def contract_core() -> ContractCore:
    """A core with the small configuration of `core_config`, over a runner that enforces its contract."""
    return build_contract_core(core_config())


@pytest.fixture(scope="session")
def starter_folder(repository: Path) -> Path:
    """The model that the first minute runs on."""
    folder = repository / "models" / "starter" / "weights"
    if not (folder / "model.safetensors").is_file():
        pytest.skip("models/starter/weights holds no model")
    return folder


@pytest.fixture(scope="session")
def stories_folder(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 260k-parameter story model, converted with our own tool."""
    source = shared / "models" / "stories260k"
    folder = tmp_path_factory.mktemp("stories260k")
    assert llama2c.main([str(source / "stories260K.bin"), str(source / "tok512.bin"), str(folder)]) == 0
    return folder
