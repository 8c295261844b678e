"""Alembic's environment: migrations run on the connection, and in the transaction, that `upgrade` opened."""

from __future__ import annotations

from alembic import context

from prefect_kling.ledger.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()
