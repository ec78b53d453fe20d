"""Which control a record answers: the map from regulations and standards to reports and proofs.

The map is data, `control_map.json`, with a version; `control_map` reads it strictly into frozen values.  It promises
no compliance: each row says where the log's word ends.
"""
