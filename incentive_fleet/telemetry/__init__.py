"""What can be known of the fleet from outside: metrics, logs, traces. It changes nothing that it tells of."""
