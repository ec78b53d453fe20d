"""One live appliance for all tests of the trunk that only read from it or add to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live_appliance import LiveAppliance, running_appliance


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveAppliance]:
    """A running appliance with the starter model; tests must not stop it."""
    with running_appliance(tmp_path_factory.mktemp("live") / "state") as appliance:
        yield appliance
