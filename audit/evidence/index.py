"""index.json: what a pack holds, which entries are in range, and which of them are proven singly.

Pure.  Laws: one value has one text; whether an entry is in range is a function of its index and its time; the sample is
a function of the seed and the entries in range, so that nobody chooses what is looked at after seeing it.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from audit.errors import ProofRefused
from audit.leaf import MAX_SAFE_INTEGER
from audit.tiles import ANCHORS_FOLDER, LOG_FOLDER, VKEY_NAME

FORMAT = "cloister-evidence/1"
INDEX_NAME = "index.json"
LEAF_NAME, PROOF_NAME, GROWTH_NAME = "index.leaf", "index.proof", "index.growth"
SEAL_NAMES = (INDEX_NAME, LEAF_NAME, PROOF_NAME, GROWTH_NAME)
"""What the index cannot name: itself, and the entry that holds its digest."""
JSONL_NAME, CSV_NAME, PARQUET_NAME = "records.jsonl", "records.csv", "records.parquet"
PROOF_FOLDER = "proofs"


def is_evidence(folder: Path) -> bool:
    """Tell whether a folder is meant as a pack: an export has log, key and witnessed heads, and nothing more."""
    plain = {LOG_FOLDER, VKEY_NAME, ANCHORS_FOLDER}
    return (folder / LOG_FOLDER).is_dir() and any(path.name not in plain for path in folder.iterdir())


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries become records: half-open ranges of index and of time, both of which must hold."""

    from_index: int = 0
    until_index: int = MAX_SAFE_INTEGER
    from_us: int = 0
    until_us: int = MAX_SAFE_INTEGER

    def holds(self, index: int, ts_us: int) -> bool:
        """Tell whether an entry is in range."""
        return self.from_index <= index < self.until_index and self.from_us <= ts_us < self.until_us


@dataclass(frozen=True, slots=True)
class SampleRule:
    """Which entries in range are proven singly: those of some kinds, and `size` that the seed draws."""

    seed: str
    size: int
    always: tuple[str, ...]
    """Kinds, in alphabetical order."""


@dataclass(slots=True)
class Drawing:
    """Draws the sample while the entries pass: those with the least SHA-256 of `seed:index`."""

    rule: SampleRule
    _always: list[int] = field(default_factory=list)
    _least: list[tuple[int, int]] = field(default_factory=list)

    def offer(self, index: int, kind: str) -> None:
        """Consider the next entry in range."""
        rank = int.from_bytes(sha256(f"{self.rule.seed}:{index}".encode()).digest())
        heapq.heappush(self._least, (-rank, index))
        if len(self._least) > self.rule.size:
            heapq.heappop(self._least)
        if kind in self.rule.always:
            self._always.append(index)

    def drawn(self) -> list[int]:
        """Return the indexes to prove, ascending."""
        return sorted({*self._always, *(index for _, index in self._least)})


@dataclass(frozen=True, slots=True)
class FileSeal:
    """One file as it was when the index was made."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class PackIndex:
    """Everything that index.json says."""

    origin: str
    head_size: int
    head_root: str
    started_index: int
    """Of the entry by which the appliance allowed the pack."""
    minimum_index: int
    """Entries below it had been pruned from the log."""
    selection: Selection
    sample: SampleRule
    num_records: int
    absent: tuple[str, ...]
    """What the log names and the pack could not be given: bundles and manifests that are gone."""
    files: Mapping[str, FileSeal]

    def to_bytes(self) -> bytes:
        """Write the file."""
        value = {
            "absent": list(self.absent),
            "files": {path: {"sha256": seal.sha256, "size": seal.size} for path, seal in self.files.items()},
            "format": FORMAT,
            "head": {"root": self.head_root, "size": self.head_size},
            "minimum_index": self.minimum_index,
            "num_records": self.num_records,
            "origin": self.origin,
            "range": {
                "from_index": self.selection.from_index,
                "from_us": self.selection.from_us,
                "until_index": self.selection.until_index,
                "until_us": self.selection.until_us,
            },
            "sample": {"always": list(self.sample.always), "seed": self.sample.seed, "size": self.sample.size},
            "started_index": self.started_index,
        }
        return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Parse the file; only what `to_bytes` writes is accepted."""
        try:
            found = json.loads(content)
            index = cls._from_json(found)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ProofRefused(f"{INDEX_NAME} has not the form of an index") from error
        if index.to_bytes() != content:
            raise ProofRefused(f"{INDEX_NAME} is not in the one form of an index")
        return index

    @classmethod
    def _from_json(cls, found: dict[str, Any]) -> Self:
        bounds, sample = found["range"], found["sample"]
        return cls(
            origin=str(found["origin"]),
            head_size=int(found["head"]["size"]),
            head_root=str(found["head"]["root"]),
            started_index=int(found["started_index"]),
            minimum_index=int(found["minimum_index"]),
            selection=Selection(**{name: int(value) for name, value in bounds.items()}),
            sample=SampleRule(str(sample["seed"]), int(sample["size"]), tuple(map(str, sample["always"]))),
            num_records=int(found["num_records"]),
            absent=tuple(map(str, found["absent"])),
            files={
                str(path): FileSeal(int(seal["size"]), str(seal["sha256"])) for path, seal in found["files"].items()
            },
        )
