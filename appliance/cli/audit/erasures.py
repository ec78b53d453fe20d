"""Erase a person through the running appliance, and check the certificate with the log's public key alone."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.audit.arguments import Reason
from appliance.cli.audit.evidence_files import read_short, read_vkey
from appliance.cli.client import ApplianceClient
from appliance.cli.refusals import WRONG_USAGE, exits_cleanly, leave
from appliance.keeping.certificate import MAX_CERTIFICATE_BYTES, CheckedCertificate, check_certificate
from appliance.settings import read_settings
from appliance.state.layout import StateLayout
from audit.checkpoint import LogVerifier
from audit.report import printable


@exits_cleanly
def erase(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="The person's id, exactly as `actor` has it.")],
    reason: Reason,
    tenant: Annotated[str | None, typer.Option("--tenant", help="The person's tenant; default: your own.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Keep the certificate in this new file.")] = None,
) -> None:
    """Destroy a person's keys: what was sealed or committed to under them is beyond everybody's reach, for good."""
    if out is not None and out.exists():
        leave(f"{out} exists; name a new file", WRONG_USAGE)
    client = ApplianceClient("privacy")
    verifier = read_vkey(client.layout.log_vkey)
    body = {"subject": subject, "reason": reason, **({} if tenant is None else {"tenant": tenant})}
    content = client.post("/audit/erasures", body).content
    if out is not None:
        out.write_bytes(content)
    _say(check_certificate(content, verifier), verifier)
    print(f"certificate written to {out}" if out else content.decode(), end="\n" if out else "")


@exits_cleanly
def check_certificate_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A certificate that `cloister audit erase` wrote.")],
    vkey: Annotated[
        Path | None, typer.Option("--vkey", help="The log's public key; default: the state folder's.")
    ] = None,
) -> None:
    """Check an erasure's certificate: no appliance, no network, the log's public key alone decides."""
    verifier = read_vkey(vkey or StateLayout(read_settings().state_dir.resolve()).log_vkey)
    _say(check_certificate(read_short(file, max_bytes=MAX_CERTIFICATE_BYTES), verifier), verifier)


def _say(proven: CheckedCertificate, verifier: LogVerifier) -> None:
    at = dt.datetime.fromtimestamp(proven.erased_at_us / 1e6, tz=dt.UTC).isoformat(timespec="seconds")
    print(printable(f"ERASED: subject {proven.subject} of tenant {proven.tenant}, at {at}"))
    print(printable(f"keys destroyed: {', '.join(proven.key_ids)}"))
    print(f"entry {proven.index} in the tree of {proven.checkpoint.size} entries signed by {verifier.name}")
