# The two logins and the database, once, when the volume is new; the Postgres image's entry point reads this in.
# The owner makes tables (`db upgrade`). The application owns nothing; what it may do, `db upgrade` grants.
psql -v ON_ERROR_STOP=1 --no-password --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\getenv owner_password INCENTIVES_OWNER_PASSWORD
\getenv application_password INCENTIVES_PASSWORD
CREATE ROLE incentives_owner LOGIN CREATEROLE PASSWORD :'owner_password';
CREATE ROLE incentives LOGIN PASSWORD :'application_password';
CREATE DATABASE incentives OWNER incentives_owner ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE incentives FROM PUBLIC;
GRANT CONNECT ON DATABASE incentives TO incentives;
SQL
