"""How the ledger's tables came to be, step by step (Alembic); the ledger runs what is missing on first use."""
