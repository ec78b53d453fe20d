"""A log in a SQLite file of its own: the embedded default.

engine        connections that have proven every setting durability rests on
schema_check  whether tables, indexes and triggers are exactly those of the migrations
hold          the file held for writing: its lock, its journal, its identity
"""
