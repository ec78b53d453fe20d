"""Settings -> sinks: the folders, collectors and witnesses that the operator named, and no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.state.files import make_folder
from audit.anchoring.directory import DirectorySink
from audit.anchoring.http_post import HttpAddress
from audit.anchoring.kept import KeptNotes
from audit.anchoring.sink import AnchorSink
from audit.anchoring.syslog import SyslogAddress, SyslogSink
from audit.anchoring.witness_client import WitnessAddress, WitnessSink
from audit.cosignature import CosignatureVerifier

if TYPE_CHECKING:
    from appliance.settings import Settings


def sinks_of(
    settings: Settings, kept_folder: Path, prove: Callable[[int, int], Sequence[bytes]]
) -> tuple[AnchorSink, ...]:
    """Make every sink; nothing is opened or asked yet.

    Args:
        settings: whose forms were checked when they were read.
        kept_folder: where cosigned heads are kept; made where there is a witness.
        prove: gives the consistency proof from a size to a signed size of the log.
    """
    witnesses = [
        WitnessAddress(
            HttpAddress.from_url(one.url), CosignatureVerifier.from_vkey(one.vkey), one.key_file, one.ca_file
        )
        for one in settings.anchor_witnesses
    ]
    if witnesses:
        make_folder(kept_folder)
    kept = KeptNotes(kept_folder, [one.verifier for one in witnesses])
    return (
        *(DirectorySink(folder) for folder in settings.anchor_directories),
        *(DirectorySink(folder, written_once=True) for folder in settings.anchor_written_once),
        *(SyslogSink(SyslogAddress.from_text(text)) for text in settings.anchor_syslog),
        *(WitnessSink(witness, prove, kept) for witness in witnesses),
    )
