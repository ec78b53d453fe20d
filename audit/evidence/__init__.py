"""The evidence pack: a folder that an auditor takes home, and everything in it follows from the signed log beside it.

    PACK/tlog/, log.vkey        the whole log as C2SP tlog-tiles, and its public key for convenience
    PACK/records.{jsonl,csv,parquet}   the entries in range: their own bytes, a spreadsheet's view, typed columns
    PACK/proofs/N.{leaf,tlog-proof}    single entries that stand alone: a seeded sample, and every act of governance
    PACK/summary.pdf            counts and charts for people
    PACK/policy/, models/, approvals/, trust/   signed files as they are, whose digests the log holds
    PACK/verify.py, README.txt  the verifier that needs nothing, and how to use it
    PACK/index.json             every file's size and SHA-256
    PACK/index.{leaf,proof,growth}     the entry that holds the index's digest, its proof, and how the tree grew to it

Promise: a pack appears whole, sealed and verified, or not at all; the same log, range and seed give the same bytes;
memory does not grow with the log.  Never: asks the appliance, signs, or writes outside its folder.

    build       the walk: export, verify, records, proofs, summary, index
      records     the one pass over the entries: text, table, typed columns, tally, sample
      proofs      single entries with their tlog-proofs
      summary     the PDF; `charts` draws
    check       the product's verification of a pack, beside `audit.verification`
    index       pure: index.json as a value, which entries are in range, and which of them are drawn
    table       pure: the CSV row of an entry
    typed       the Parquet columns of an entry
    tally       pure: what the summary counts
    tile_log    an exported log as leaves and nodes
"""
