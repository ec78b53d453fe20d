"""What a leaf says of the things that are stored beside it: sealed content, and a floor for pruning.

Pure.  Laws: the facts `contents`, `what` and `minimum_index` of such a leaf are this module's alone to write, so a leaf
cannot claim content that was not committed with it; what is stored can be held against the leaf by anyone.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256

from audit.errors import AuditRefused
from audit.event import Event, Floor, JsonValue, Pruned, SealedContent

CONTENTS_FACT = "contents"
BLOCK_LEN = 256
"""Entries are pruned by whole tiles (C2SP tlog-tiles)."""
BLOCK_LEVEL = 8
"""Nodes of this level and above stay: they stand for what was pruned."""
MAX_CONTENT_BYTES = 64 * 2**20
_PRUNED = frozenset(what.value for what in Pruned)
_PHASE = re.compile(r"[a-z][a-z0-9_]{0,31}")


def bind_contents(event: Event, contents: Sequence[SealedContent]) -> Event:
    """Return the event with the digest of each sealed content among its facts.

    Raises:
        AuditRefused: two of one phase, none of a proper name, too long, or facts that already speak of contents, or of
            a floor.
    """
    if CONTENTS_FACT in event.facts:
        raise AuditRefused(f"the fact {CONTENTS_FACT} is the log's own")
    if described_floor(event) is not None:
        raise AuditRefused("the facts what and minimum_index together are the log's own")
    if not contents:
        return event
    said: dict[str, JsonValue] = {}
    for content in contents:
        if not _PHASE.fullmatch(content.phase) or content.phase in said:
            raise AuditRefused(f"the phase {content.phase!r} is no name, or is given twice")
        if len(content.ciphertext) > MAX_CONTENT_BYTES:
            raise AuditRefused(f"sealed content of {len(content.ciphertext)} bytes; the limit is {MAX_CONTENT_BYTES}")
        said[content.phase] = describe(content)
    return dataclasses.replace(event, facts={**event.facts, CONTENTS_FACT: said})


def describe(content: SealedContent) -> dict[str, JsonValue]:
    """Return what a leaf says of one sealed content; the digest is over nonce and ciphertext."""
    return {
        "key_id": content.key_id,
        "num_bytes": len(content.ciphertext),
        "sha256": sha256(content.nonce + content.ciphertext).hexdigest(),
    }


def described_contents(event: Event) -> Mapping[str, object]:
    """Return phase -> description of what must be stored beside this event's leaf."""
    said = event.facts.get(CONTENTS_FACT)
    return said if isinstance(said, Mapping) else {}


def bind_floor(event: Event, floor: Floor) -> Event:
    """Return the event with the floor among its facts.

    Raises:
        AuditRefused: entries are pruned by whole blocks only, and facts that already speak of a floor are not ours.
    """
    if "minimum_index" in event.facts or "what" in event.facts:
        raise AuditRefused("the facts what and minimum_index are the log's own")
    if floor.minimum_index <= 0 or (floor.what is Pruned.LEAF and floor.minimum_index % BLOCK_LEN):
        raise AuditRefused(f"entries are pruned by whole blocks of {BLOCK_LEN}, not below {floor.minimum_index}")
    return dataclasses.replace(
        event, facts={**event.facts, "minimum_index": floor.minimum_index, "what": floor.what.value}
    )


def described_floor(event: Event) -> Floor | None:
    """Return the floor that this event's leaf records, if it is one that does."""
    what, minimum_index = event.facts.get("what"), event.facts.get("minimum_index")
    if not isinstance(what, str) or type(minimum_index) is not int or what not in _PRUNED:
        return None
    return Floor(Pruned(what), minimum_index)


def policy_ids(event: Event) -> tuple[str, ...]:
    """Return the ids under which a leaf is found by policy: the texts of its fact `policy_ids`, each once."""
    said = event.facts.get("policy_ids")
    if not isinstance(said, Sequence) or isinstance(said, str):
        return ()
    return tuple(sorted({policy_id for policy_id in said if isinstance(policy_id, str)}))
