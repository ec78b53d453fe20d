"""The state folder: where everything lies that an appliance must not lose or show.

Promise: what `opening.open_state` returns was verified back to the pinned trust root; a missing, exposed or damaged
file is one error that names it and the remedy.  Never: a half-made state, a silent repair, a re-signing under
production trust.  Values: `layout.StateLayout`, `opening.OpenState`.  Entry points:
`development.provision_development` (only for `make serve`), `opening.hold_state`, `opening.open_state`.
"""
