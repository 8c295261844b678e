"""How an older ledger is brought up to date: alembic's environment and one script a version."""
