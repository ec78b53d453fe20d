"""Show the log's condition in figures, through the running appliance."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from appliance.cli.audit.arguments import Json
from appliance.cli.client import ApplianceClient
from appliance.cli.refusals import exits_cleanly
from audit.report import printable

GIB = 2**30


@exits_cleanly
def status(*, as_json: Json = False) -> None:
    """Show head, size, growth, disk, writer, clock and copies of the log."""
    found = ApplianceClient("operator").get("/audit/status").json()
    print(json.dumps(found) if as_json else status_text(found))


def status_text(found: dict[str, Any]) -> str:
    """Give the condition for a terminal."""
    size, disk, writer, clock = found["size"], found["disk"], found["writer"], found["clock"]
    commit = writer["last_commit"]
    halted = "" if not writer["halt_reason"] else f" ({writer['halt_reason']})"
    waiting = f"{writer['num_waiting']} waiting, longest wait {writer['longest_wait_ms']} ms"
    per_each = f"{_each(size['bytes_per_leaf'], 'entry')}, {_each(size['bytes_per_request'], 'request')}"
    lines = [
        f"{found['origin']}: {found['tree_size']} entries, root {found['root']}",
        f"  run {found['epoch']}, boot {found['boot_id']}, node {found['node_id']}",
        f"  writer {writer['state']}{halted}, {waiting}",
        "  no commit yet" if commit is None else _commit_line(commit),
        f"  {_bytes(size['used_bytes'])}: {per_each}",
        f"  {_plain(size['leaves_per_day'])} entries a day, {_bytes(size['bytes_per_day'])} a day",
        _disk_line(disk),
        f"  clock {clock['state']}{_within(clock['max_error_us'])}",
    ]
    if found["retention"]["first_entry"]:
        lines.append(f"  entries below {found['retention']['first_entry']} were pruned")
    lines += [f"  anchor {one['sink']}: {_anchored(one)}{_failing(one)}" for one in found["anchors"]]
    lines += [f"  copy to {one['destination']}: {one['num_behind']} behind" + _failing(one) for one in found["exports"]]
    return "\n".join(map(printable, lines))


def _commit_line(commit: dict[str, Any]) -> str:
    return f"  last commit {_at(commit['at_us'])}: {commit['num_leaves']} entries in {commit['ms']} ms"


def _disk_line(disk: dict[str, Any]) -> str:
    if disk["free_bytes"] is None:
        return "  the disk is the database server's; watch it there"
    left = "no end in sight" if disk["days_left"] is None else f"{disk['days_left']} days left at this pace"
    full = f"{100 * disk['fill_ratio']:.1f} % of the way to the floor of {_bytes(disk['floor_bytes'])}"
    return f"  disk: {_bytes(disk['free_bytes'])} free, {full}, {left}"


def _anchored(anchor: dict[str, Any]) -> str:
    if anchor["size"] is None:
        return "no head taken in this run"
    return f"has the head of {anchor['size']} entries, {anchor['num_ahead']} came since"


def _failing(export: dict[str, Any]) -> str:
    return "" if export["failing"] is None else f", FAILING ({export['failing']}): {export['reason'] or 'no answer'}"


def _within(max_error_us: int | None) -> str:
    return "" if max_error_us is None else f", within {max_error_us / 1e3:.1f} ms by the kernel's bound"


def _at(at_us: int) -> str:
    return dt.datetime.fromtimestamp(at_us / 1e6, tz=dt.UTC).isoformat(timespec="milliseconds")


def _plain(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.0f}"


def _each(value: float | None, what: str) -> str:
    return f"unknown per {what}" if value is None else f"{value:,.0f} bytes per {what}"


def _bytes(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value / GIB:.2f} GiB" if value >= GIB else f"{value / 2**20:.2f} MiB"
