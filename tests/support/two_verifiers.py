"""Both verifiers of an evidence pack, asked the same: the product's, and the file that travels in the pack."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from evidence_packs import PAIRING

from audit.checkpoint import LogVerifier
from audit.verify import verify_log

REPOSITORY = Path(__file__).resolve().parents[2]
VERIFIER_FILE = REPOSITORY / "audit/standalone/verify.py"


def load_standalone(path: Path = VERIFIER_FILE) -> ModuleType:
    """Import the single file as the module it is, wherever it lies."""
    spec = importlib.util.spec_from_file_location("standalone_verify", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STANDALONE = load_standalone()


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What each of the two found: (entry index, file, what) each."""

    ours: list[tuple[int | None, str, str]]
    standalone: list[tuple[int | None, str, str]]

    @property
    def passed(self) -> tuple[bool, bool]:
        """Whether each of them lets the pack pass."""
        return not self.ours, not self.standalone


def judge(pack: Path, verifier: LogVerifier, kept: Sequence[str] = ()) -> Verdicts:
    """Ask both."""
    report = verify_log(pack, [verifier], PAIRING, known_notes=kept)
    ours = [(found.index, found.where, found.what) for found in report.findings]
    keys = [STANDALONE.read_key(verifier.vkey)]
    heads = [STANDALONE.open_checkpoint(note, keys) for note in kept]
    return Verdicts(ours, STANDALONE.verify(pack, keys, heads)[1])
