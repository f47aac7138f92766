"""How to talk: the contract of a broker, and a folder for each that keeps it."""
