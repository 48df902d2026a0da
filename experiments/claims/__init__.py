"""The ledger of claims: what was published, what our results say, what it would cost."""
