"""The auditor's saved reports R1-R13: what the log says, one pass at a time.

Promise: a report is a pure function of decoded leaves and its scope; run again over the same size of the log it gives
the same bytes.  Never: a column, a clock, an opinion that no leaf supports.

`scope` says what a run is about; one file per report turns leaves into a frozen result; `registry` lists them;
`running` feeds them from a reader; `document` and `report_file` give the result its one byte form and its evidence;
`text` shows it.
"""
