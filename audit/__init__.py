"""Append, prove, never edit: the log an auditor can check without trusting anyone.

Promise: a receipt exists only for a durable leaf; one changed bit anywhere is found.  Never: content in a leaf, an
update, a second writer.  Values: `Event`, `Receipt`, `Checkpoint`, `EntryProof`, `Report`.  Entry points:
`store.create_log`, `writer.AuditWriter`, `reader.AuditReader`, `verify.verify_log`, `export.export_log`,
`subject_keys.keyring.SubjectKeyring`.

Pure, bytes and values alone: `event`, `merkle`, `checkpoint`, `proof`, `leaf`, `tiles`, `batch`, `pairing`, `report`,
`slew`.  With a file beneath: `schema`, `stored_bytes`, `store`, `new_file`, `faults`, `recovery`, `guards`, `open_log`,
`waiting`, `writer`, `reader`, `export`.  Rooms of
their own, each with its guide: `verification`, behind `verify`; `subject_keys`, beside the log; `migrations`, under
`store`.
"""
