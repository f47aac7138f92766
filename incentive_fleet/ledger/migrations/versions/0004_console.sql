-- What the console needs: to do less than it may, in each request, and to know programs by their tokens.

-- A token of the API. The secret is 256 random bits, so that one round of SHA-256 keeps it: there is nothing to guess.
CREATE TABLE api_tokens (
    token_id      text  PRIMARY KEY CHECK (token_id ~ '^[0-9a-f]{12}$'),
    secret_sha256 bytea NOT NULL CHECK (octet_length(secret_sha256) = 32),
    name          text  NOT NULL CHECK (name <> ''),  -- who acts with it, in the trail of what is done
    roles         text[] NOT NULL CHECK (cardinality(roles) > 0),
    created_by    text  NOT NULL CHECK (created_by <> ''),
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    revoked_by    text,
    revoked_at    timestamptz,
    CONSTRAINT revoked_whole CHECK (num_nulls(revoked_by, revoked_at) IN (0, 2))
);
REVOKE ALL ON api_tokens FROM incentives_support;  -- whoever reads customers' wallets reads no hash of a token
GRANT SELECT, INSERT ON api_tokens TO incentives_app;
GRANT UPDATE (revoked_by, revoked_at) ON api_tokens TO incentives_app;

-- A service does by SET ROLE what a person asked for, with that person's rights and no more. It may take these roles and inherits
-- nothing of them: what its own role is refused, or loses, no other role gives back. Before Postgres 16 that is a matter of the
-- member, since then of the membership. Where another ledger's owner made the roles, this one may not grant them.
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['incentives_viewer', 'incentives_support', 'incentives_operator', 'incentives_approver'] LOOP
        IF NOT EXISTS (SELECT FROM pg_auth_members
                WHERE roleid = to_regrole(wanted) AND member = to_regrole('incentives_app')) THEN
            IF current_setting('server_version_num')::int >= 160000 THEN
                EXECUTE format('GRANT %I TO incentives_app WITH INHERIT FALSE, SET TRUE', wanted);
            ELSE
                IF (SELECT rolinherit FROM pg_roles WHERE rolname = 'incentives_app') THEN
                    ALTER ROLE incentives_app NOINHERIT;
                END IF;
                EXECUTE format('GRANT %I TO incentives_app', wanted);
            END IF;
        END IF;
    END LOOP;
END $$;

-- ── Grants ───────────────────────────────────────────────────────────────────────────────────────────────────────────
-- Who handed credit out or took it back, where a person or a program did; a grant by event has its fact. Beside the grants, not
-- in their rows, which a release before this one writes too.
CREATE TABLE grant_acts (
    key      text NOT NULL,
    act      text NOT NULL CHECK (act IN ('granted', 'reversed')),
    actor    text NOT NULL CHECK (actor <> ''),
    acted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (key, act)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON grant_acts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
GRANT SELECT, INSERT ON grant_acts TO incentives_app;
