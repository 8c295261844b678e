"""One script a version of the ledger's tables."""
