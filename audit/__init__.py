"""Append, prove, never edit: the log an auditor can check without trusting anyone.

Promise: a receipt exists only for a durable leaf; one changed bit anywhere is found.  Never: content in a leaf, an
update, a second writer.  Values: `Event`, `Receipt`, `Checkpoint`, `EntryProof`.  Entry points: `writer.AuditWriter`,
`reader.AuditReader`, `verify`.
"""
