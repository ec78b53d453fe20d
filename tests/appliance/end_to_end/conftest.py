"""The long fuzz runs only when asked for by `-m slow`, as the marker says."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long lanes of this folder out of a run that does not choose by marker."""
    if config.option.markexpr:
        return
    for item in items:
        if item.path.parent == HERE and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="a long lane: -m slow"))
