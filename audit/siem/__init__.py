"""A copy of the log for the operators' tools: JSON lines, CEF over syslog, OCSF.

Promise: at least once, in order - a cursor moves only after the sink took the leaves, so that a crash sends again and
never skips; each event carries its index and its leaf hash, so that the copy can be held against the log.  Never: in
the way of a request, an append, or content, which no leaf has.

What is pure: `exported` (what is sent), `severity`, `jsonl`, `cef`, `ocsf`, `syslog` (leaf in, bytes out),
`destination` (where to, out of one line of text), `copy_lines` (bytes back to index and hash).  With a file or a socket
beneath: `sink`, `file_sink`, `socket_sinks`, `cursor`, `exporter` (the thread that moves one cursor), `copy_check`.
"""
