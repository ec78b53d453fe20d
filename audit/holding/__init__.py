"""A log held for writing: alone, over one connection, with what each store asks of whoever appends.

hold           what both are, and which one a location needs
sqlite_hold    a file: a lock beside it, its journal moved by hand, its identity watched
postgres_hold  a session: the leader's lock, taken again when the connection was lost
"""
