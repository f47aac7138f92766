"""The API in GraphQL: types over what the reads give, one moment a request, loads in batches, limits known before anything runs.

schema.py      every question and act
requests.py    what HTTP brings
documents.py   query texts made ready once
limits.py      how deep, how many fields, how costly
reading.py     one moment, in batches, until the deadline
answering.py   all of it together
"""

from __future__ import annotations

from incentive_fleet.console.graphql.answering import endpoint

__all__ = ["endpoint"]
