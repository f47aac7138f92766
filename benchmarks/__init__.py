"""The benchmark: how fast events travel from a queue into the ledger, beside peers and beside the limit."""
