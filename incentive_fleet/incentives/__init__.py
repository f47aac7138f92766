"""What it means: deterministic rules on plain values. No I/O, no clock, no randomness, no logging."""
