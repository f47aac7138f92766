"""What the database is set to and what each setting risks, for `incentives doctor`. It reads, and writes nothing."""
