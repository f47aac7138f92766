"""The parts that come with us, for a demo, for trying things and for tests: Postgres, RabbitMQ, SNS and SQS.

Never for production: guest passwords, loopback only, one node each.
"""

from incentive_fleet.embedded.state import EmbeddedParts, down, running, up

__all__ = ["EmbeddedParts", "down", "running", "up"]
