"""Dead letters: collected from the brokers into Postgres, then listed, rehearsed, edited, replayed, discarded and audited.

arrivals, sqs_letters and rabbitmq_letters know the brokers; keeping, changes and replay write; store and acts read.
Everything is a function that returns plain values: the command line and a console call the same ones.
"""
