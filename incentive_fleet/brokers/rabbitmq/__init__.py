"""RabbitMQ: the only files that know pika and kombu."""
