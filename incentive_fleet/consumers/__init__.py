"""Who listens: the batch core, the transport contract, its adapters, and the fleet's processes."""
