"""High availability by doing: Patroni, three RabbitMQ nodes and the fleet, with a wire that can be cut between each two."""
