"""The incentive fleet: queue consumers that keep credits and coupons right, exactly once in effect."""
