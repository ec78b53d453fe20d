r"""The log's own form: one JSON object per line around the leaf's own bytes.  Pure.

Law: the member `leaf` holds the canonical bytes as they were hashed, so whoever has the line can hash it again:
SHA-256 over a zero byte and the RFC 8785 form of `leaf` is `leaf_hash`.  A line has no newline in it: JSON text never
does.
"""

from __future__ import annotations

import json

from audit.siem.exported import ExportedLeaf, LogName


def encode_jsonl(exported: ExportedLeaf, name: LogName) -> bytes:
    """Give one line, without its newline."""
    before = b'{"index":%d,"leaf":%b,"leaf_hash":"%b",' % (
        exported.index,
        exported.leaf_bytes,
        exported.leaf_hash.encode(),
    )
    return before + b'"log":%b}' % json.dumps(name.origin).encode()
