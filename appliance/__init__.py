"""The trunk: composes engine, audit, policies and offline_bundle into one appliance, and decides nothing by itself.

Promise: every request walks the same way (`serve.py`): authorize, admit, generate, complete.  Never: tokens without a
receipt, a route without a named action, a second path beside the walk.  Entry points: `app.build_app` and the
`cloister` command in `cli`.
"""
