"""Running a recorded request again, to see whether it comes to the same answer.

Promise: what is run again is the request that was recorded - every text is held against its commitment first, every
parameter comes from the leaf; a match is told whatever computed it; a mismatch accuses only where nothing that could
explain it differed.  Each replay leaves `replay:started` before anything is read, and one `replay:ended` with its
verdict.  One at a time, behind everybody's requests.

Never: gives out a text, an answer's or a prompt's; runs a prompt that was not recorded; shares a prefix of the cache.
Values: `RecordedRequest`, `ReplayContent`, `Verdict`.  Entry: `replayer.Replayer`.
"""
