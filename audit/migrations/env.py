"""Run the migrations on the connection that `audit.store` hands over; there is no other way to reach a log."""

from __future__ import annotations

from alembic import context

from audit.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
