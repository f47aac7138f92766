"""Asks this container's own /healthz, for Docker's HEALTHCHECK and ECS's. It needs nothing but Python and never waits for long.

A role without a health server (INCENTIVES_HEALTH_PORT is unset) is alive as long as its process is, which whoever runs
containers sees by itself: the answer is yes.
"""

import os
import sys
from http.client import HTTPConnection, HTTPException

TIMEOUT_S = 3  # below the timeout of every check that calls this

port = os.environ.get("INCENTIVES_HEALTH_PORT", "")
if port:
    connection = HTTPConnection("127.0.0.1", int(port), timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        alive = connection.getresponse().status == 200
    except (OSError, HTTPException) as error:
        sys.exit(f"/healthz at port {port} does not answer: {error}")
    sys.exit(0 if alive else f"/healthz at port {port} says no")
