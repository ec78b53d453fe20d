"""README.txt of a pack: what each file is, and the exact commands by which a stranger checks it."""

from __future__ import annotations

from collections.abc import Sequence

from audit.checkpoint import Checkpoint
from audit.evidence.index import SampleRule

_TEXT = """\
EVIDENCE PACK
=============

Log        {origin}
Head       {size} entries, root {root}
Sample     seed {seed}, {sample_size} drawn, {num_proofs} entries proven singly

You need the log's public key, `auditor.vkey`, from another hand than the one that gave you this folder.
The `log.vkey` in here is a convenience: whoever could forge the folder could forge it too.


1. Check everything, with Python 3.9 or newer and nothing else
--------------------------------------------------------------

    python3 -I -S verify.py . --key /path/to/auditor.vkey --checkpoint /path/to/kept/index.proof

Give `--checkpoint` once for each checkpoint, or `index.proof` of an earlier pack, that you kept; the first time you
have none.  It prints PASS or FAIL with the first bad entry, and ends with 0 or 1 (2: nothing could be checked).
verify.py has fewer than 400 lines and imports nothing but the standard library: read it first.

Then keep `index.proof` where the operator cannot reach it: it holds the newest signed head that you have seen.


2. Check the log with a program that others wrote
-------------------------------------------------

aics-tlog (PyPI, Apache-2.0, Python 3.12 or newer) knows nothing of us; it reads the open formats of C2SP:

    python3.12 -m venv tlog && tlog/bin/pip install aics-tlog==0.2.1
    tlog/bin/aics-tlog verify-checkpoint --tiles tlog --vkey-file /path/to/auditor.vkey
    tlog/bin/aics-tlog verify-inclusion --tiles tlog --vkey-file /path/to/auditor.vkey --index {example}


3. What is in here
------------------

    index.json               every file's size and SHA-256
    index.leaf, index.proof  the log's own entry `evidence:made` with the SHA-256 of index.json, and its proof
    index.growth             hashes that lead from the head above to the head of that proof
    tlog/                    the whole log: C2SP tlog-tiles with its signed checkpoint
    records.jsonl            the entries in range, byte for byte, one a line
    records.csv              the same for a spreadsheet; an apostrophe stands before what it would run as a formula
    records.parquet          the same as typed columns
    proofs/N.leaf, .tlog-proof   single entries that stand alone (C2SP tlog-proof)
    summary.pdf              counts and charts for people
    policy/, trust/          policy bundles and trust roots, signed, as they are
    models/, approvals/      what was signed about each model: the manifest of its files, and its approvals
    control-map.json         which control of which regulation is answered by which report, and proven by what
    verify.py                the verifier; SHA-256 in index.json


4. What this proves, and what it does not
-----------------------------------------

It proves that these entries are what the appliance recorded, whole, in this order, with nothing changed, added or
left out up to the head, as far as the checkpoints that you kept reach.  Without one it does not show that the end was
cut off, or that whoever holds the signing key wrote all of it anew.

It does not prove that what the appliance recorded is true: times are its clock's, and who is behind a key is known to
whoever gave out the key.  It holds no prompt and no answer, only keyed commitments to them.
"""


def readme_text(origin: str, head: Checkpoint, rule: SampleRule, proven: Sequence[int]) -> str:
    """Write the page for one pack."""
    return _TEXT.format(
        origin=origin,
        size=head.size,
        root=head.root.hex(),
        seed=rule.seed,
        sample_size=rule.size,
        num_proofs=len(proven),
        example=proven[0] if proven else 0,
    )
