"""Who speaks: publishers for SNS and RabbitMQ, the outbox relay, and the outbox an order system can adopt."""
