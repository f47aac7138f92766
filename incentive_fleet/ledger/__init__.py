"""The truth: tables, migrations, locking, posting, lots, outbox, verification. The only code that writes money."""
