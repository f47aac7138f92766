"""The web process: pages for people, GraphQL for programs. Both parse, call one function that the command line calls too, and
print; nothing that is decided or booked is decided here.

    visitors.py      who asks, and what that one may
    connections.py   the database, under the visitor's role, within a deadline
    login.py         how a visitor becomes known: OIDC, a token, or this machine alone
    shields.py       what every answer has and every request must have
    pages/           the console
    graphql/         the API
    application.py   all of it as one ASGI application
    serving.py       ... served until it is told to stop
"""
