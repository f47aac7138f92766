"""Makes the application's login as INCENTIVES_DATABASE_URL names it, by INCENTIVES_ADMIN_DATABASE_URL, the owner's.

Once before the first `incentives db upgrade`, and again whenever the password is another one. It grants nothing: what the
login may do, `db upgrade` says. Repeating it is harmless. A login that could do more than log in is left alone and refused; one
that somebody else made, and the owner may not change, is good if the address leads in.
"""

import os
import sys

import psycopg
from psycopg import conninfo, sql

TRIED_S = 20  # to connect

PLAIN = """
    SELECT NOT (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls) FROM pg_roles WHERE rolname = %s
"""

wanted = conninfo.conninfo_to_dict(os.environ["INCENTIVES_DATABASE_URL"])
name, password = str(wanted.get("user") or ""), str(wanted.get("password") or "")
if not name or not password:
    sys.exit("INCENTIVES_DATABASE_URL names no user or no password")
with psycopg.connect(os.environ["INCENTIVES_ADMIN_DATABASE_URL"], connect_timeout=TRIED_S, autocommit=True) as owner:
    found = owner.execute(PLAIN, (name,)).fetchone()
    if found == (False,):
        sys.exit(f"the login {name} may do more than log in: it is not the application's, and stays as it is")
    verb = sql.SQL("ALTER" if found else "CREATE")
    # The password goes over the wire hashed, so that no server log ever holds it.
    hashed = owner.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    try:
        owner.execute(sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, sql.Identifier(name), sql.Literal(hashed)))
    except psycopg.errors.InsufficientPrivilege as error:
        if not found:
            sys.exit(f"the owner may make no login: {error.diag.message_primary}")
        psycopg.connect(os.environ["INCENTIVES_DATABASE_URL"], connect_timeout=TRIED_S).close()
print(f"the login {name} is there")
