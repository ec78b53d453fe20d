"""A crash at any durable step leaves no half-made state, and the next start completes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import pytest

from appliance.model_store import open_model
from appliance.state import development
from appliance.state.errors import StateUnusable
from appliance.state.layout import StateLayout
from appliance.state.opening import open_state, read_approvals

DURABLE = ("fsync", "rename", "mkdir", "rmdir", "unlink", "link")


class PowerCut(BaseException):
    """The process ends here: no handler of ours may turn it into anything else."""


@contextmanager
def power_cut(monkeypatch: pytest.MonkeyPatch, at_call: int, *, persisted: bool) -> Iterator[Callable[[], bool]]:
    """Cut the power at the nth durable call, just before it takes effect or just after; yields whether it happened."""
    calls = 0

    def cut(real: Callable[..., object]) -> Callable[..., object]:
        def durable(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls > at_call:
                if persisted and calls == at_call + 1:
                    real(*args, **kwargs)
                raise PowerCut  # and nothing that runs on the way out may reach the disk either
            return real(*args, **kwargs)

        return durable

    with monkeypatch.context() as patch:
        for name in DURABLE:
            patch.setattr(os, name, cut(getattr(os, name)))
        yield lambda: calls > at_call


def crash_points(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[], object], *, persisted: bool, stride: int
) -> Iterator[int]:
    """Run `work` with a cut at every `stride`th durable call, until it gets through uncut."""
    at_call = 0
    while True:
        with power_cut(monkeypatch, at_call, persisted=persisted) as happened:
            try:
                work()
            except PowerCut:
                assert happened()
            else:
                assert not happened(), "a power cut was swallowed"
                return
        yield at_call
        at_call += stride


def is_whole(layout: StateLayout, now: datetime) -> bool:
    """Whether everything in the state verifies; raises when something does not."""
    state = open_state(layout, now)
    model = open_model(layout.model("starter"), state.trust_root, read_approvals(layout, "starter"), now)
    return bool(state.policy.seq and model.files)


@pytest.mark.parametrize("persisted", [False, True], ids=["failed and not persisted", "failed but persisted"])
def test_first_run_cut_anywhere_appears_whole_or_not_at_all(
    layout: StateLayout, provision, now: datetime, monkeypatch: pytest.MonkeyPatch, persisted: bool
) -> None:
    """The leftovers of one cut are what the next cut falls upon."""
    monkeypatch.setattr(development, "load_bundle", lambda files: files)  # compiled often enough elsewhere
    num_cuts = 0
    for at_call in crash_points(monkeypatch, provision, persisted=persisted, stride=7):
        num_cuts += 1
        if layout.root.exists():
            assert is_whole(layout, now), at_call
    assert num_cuts >= 8
    assert is_whole(layout, now)
    assert provision().changes == ()


@pytest.mark.parametrize("persisted", [False, True], ids=["failed and not persisted", "failed but persisted"])
def test_first_run_cut_around_the_last_rename(
    layout: StateLayout, provision, now: datetime, monkeypatch: pytest.MonkeyPatch, persisted: bool
) -> None:
    """The one step that makes the state appear: before it there is nothing, after it everything."""
    real = os.rename

    def rename(source: object, target: object) -> None:
        if Path(str(target)) != layout.root:
            return real(source, target)  # type: ignore[arg-type]
        if persisted:
            real(source, target)  # type: ignore[arg-type]
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(PowerCut):
            provision()
    assert layout.root.exists() == persisted
    assert provision().created == (not persisted)
    assert is_whole(layout, now)


@pytest.mark.parametrize("persisted", [False, True], ids=["failed and not persisted", "failed but persisted"])
def test_renewal_cut_anywhere_is_completed_by_the_next_start(
    state: StateLayout, provision, starter: Path, now: datetime, monkeypatch: pytest.MonkeyPatch, persisted: bool
) -> None:
    """Policy and model both changed; after each cut an uncut start makes the state whole, with the new content."""
    monkeypatch.setattr(development, "load_bundle", lambda files: files)
    number = 0

    def renew() -> object:
        return provision(policy_files={"base/x.cedar": str(number).encode()})

    at_call = 0
    while True:
        number += 1
        (starter / "config.json").write_bytes(str(number).encode())
        with power_cut(monkeypatch, at_call, persisted=persisted) as happened:
            with suppress(PowerCut):
                renew()
            was_cut = happened()
        renew()
        assert is_whole(state, now), at_call
        assert (state.model("starter") / "config.json").read_bytes() == str(number).encode()
        assert open_state(state, now).policy_files == {"base/x.cedar": str(number).encode()}
        assert [path.name for path in state.models.iterdir()] == ["starter"]
        if not was_cut:
            break
        at_call += 2
    assert at_call > 20


def test_disk_that_fills_up_is_one_clear_error_and_the_next_start_completes(
    layout: StateLayout, provision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC anywhere: the operator reads which path and what to check, and nothing half-made is in place."""
    real = os.fsync
    calls = 0

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(StateUnusable, match="No space left on device"):
            provision()
    assert not layout.root.exists()
    assert provision().created
