"""Facts in, Allow or Deny out: pure, total, deny by default.

Promise: an error of any kind is a Deny, and is reported.  Never: input or output while deciding, a clock, a second
answer to the same question.  Values: `Facts`, `Allow`, `Deny`, `Obligations`.  Entry points: `bundle.load_bundle`,
`cedar.PolicyEngine.decide`; `actions.ACTIONS` is the table of what can be asked.
"""
