-- What the console needs: to do less than it may, in each request, to know programs by their tokens, and people by their logins.

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

-- A login of the console that still holds. Its cookie is signed and names the row, so the id is no secret; without the row the
-- cookie is good for nothing, wherever somebody keeps a copy of it.
CREATE TABLE console_logins (
    login_id text   PRIMARY KEY CHECK (login_id ~ '^[0-9a-f]{32}$'),
    name     text   NOT NULL CHECK (name <> ''),
    roles    text[] NOT NULL CHECK (cardinality(roles) > 0),
    began_at timestamptz NOT NULL,
    ends_at  timestamptz NOT NULL
);
CREATE INDEX console_logins_of_a_person ON console_logins (name, began_at);
CREATE INDEX console_logins_that_are_over ON console_logins (ends_at);
REVOKE ALL ON console_logins FROM incentives_support;  -- who works here, and since when, is nobody's to read
GRANT SELECT, INSERT, DELETE ON console_logins TO incentives_app;
GRANT UPDATE (ends_at) ON console_logins TO incentives_app;  -- to lock what is over, which takes the right to change something
-- Who put whom out. Of a login itself nothing is left once it is over.
CREATE TABLE login_acts (
    act_no   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name     text   NOT NULL CHECK (name <> ''),
    ended    int    NOT NULL CHECK (ended > 0),  -- logins
    actor    text   NOT NULL CHECK (actor <> ''),
    acted_at timestamptz NOT NULL
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON login_acts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
REVOKE ALL ON login_acts FROM incentives_support;
GRANT SELECT, INSERT ON login_acts TO incentives_app;

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

-- ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
-- Who let a run go on, stopped it or went on with it stands in the trail too: an act on a run as a whole, and on no letter.
ALTER TABLE dead_letter_audit ALTER COLUMN dead_letter_id DROP NOT NULL;
ALTER TABLE dead_letter_audit DROP CONSTRAINT dead_letter_audit_act_check;
ALTER TABLE dead_letter_audit ADD CONSTRAINT dead_letter_audit_act_check CHECK (
    CASE WHEN act IN ('approved', 'stopped', 'resumed') THEN dead_letter_id IS NULL AND run_id IS NOT NULL
         ELSE dead_letter_id IS NOT NULL AND act IN ('collected', 'imported', 'returned', 'reopened', 'edited', 'undone',
            'claimed', 'sent', 'not-sent', 'discarded', 'restored', 'corrected', 'purged') END);
-- A person goes on with their own runs alone; a service does so for whom it acts.
CREATE TRIGGER keep_owner BEFORE UPDATE OF status ON dead_letter_runs FOR EACH ROW
    WHEN (current_user <> 'incentives_app' AND OLD.status = 'stopped' AND NEW.status = 'ready')
    EXECUTE FUNCTION keep_actor('actor');

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
