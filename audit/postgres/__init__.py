"""A log in PostgreSQL 15 or newer, reached as one of three roles: owner, writer, reader.

The owner makes the log (`audit.provision`) and is not needed again until the tables change.  The writer may insert and
read, and delete only through the owner's one function, below a recorded floor.  The reader may read.

    engine        connections that have proven every setting durability rests on, and that their role may do no more
    schema_check  whether tables, functions, triggers and rights are exactly those that `audit.provision` makes
"""
