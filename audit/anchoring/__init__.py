"""Heads leave the box: where a signed head is put so that whoever owns the log's disk cannot take it back.

Promise: a sink either holds the head when `anchor` returns, as far as its kind can tell, or raises `AnchorFailed` with
the reason; one that knows a newer or another head of this log raises `AnchorAhead` and takes nothing.  Never: waits for
another sink, stands in the writer's way, opens a connection that the operator did not configure, or makes the folder,
socket or witness that it was told to use.

    head.py            a signed head, and the file name of a log
    sink.py            what every sink promises
    directory.py       a folder on a medium that leaves the room, or that can be written once
    syslog_line.py     RFC 5424: the line and back; pure
    syslog.py          that line to a Unix socket, a UDP or a TCP address
    submission.py      C2SP tlog-witness: request and answer as text; pure
    witness_client.py  a head to a witness, its cosignature back
    kept.py            the newest head that each witness cosigned, in a folder of ours
    witness.py         the other side: cosign what extends what was cosigned before
    runner.py          one thread per sink, so that one that hangs stops nothing
    evidence.py        every head that a folder, a file or a captured syslog holds, for the verifier
"""
