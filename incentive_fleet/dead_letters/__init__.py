"""Dead letters: collected from the brokers into Postgres, then listed, rehearsed, edited, replayed, discarded and audited.

The brokers' side is in brokers/; keeping, changes and replay write; store and audit read. Everything is a function that
returns plain values: the command line and a console call the same ones.
"""
