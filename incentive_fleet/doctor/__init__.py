"""What all parts are set to and what each setting risks: asks ledger, brokers and this host, and prints nothing."""
