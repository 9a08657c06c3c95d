"""Runs migrations on the connection that the caller opened."""

from alembic import context

from mrtc_signaling.adapters.app_tables import VERSION_TABLE, Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
