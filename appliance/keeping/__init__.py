"""What is kept of a person and of a request, for how long, and how it goes.

Promise: the state of every act is read from the log's leaves alone, so it survives a crash and can be proven; whether
something may go is decided by pure functions whose outcomes are types.  Never: a table beside the log, an act of two
people by one.

    names          how names of people are compared, where a hold must not be slipped by
    leaves         reads leaves of one kind, oldest or newest first
    holds          what is under legal hold
    erasure        whether a person may be erased; how an erasure is carried out and finished after a crash
    certificate    the proof of an erasure, checked offline
    content_forms  the bytes that a commitment may have been made over, from the text that somebody has
    retention      how long entries and contents stay; profiles as data
    pruning        whether entries may go
"""
