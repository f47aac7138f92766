-- Dead letters, brought here from the brokers' own dead-letter queues so that people can search, edit and replay them.

-- What is the matter with letters that are alike; people call a group by its number, which it keeps for ever.
CREATE TABLE dead_letter_groups (
    group_no   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key        bytea NOT NULL UNIQUE,  -- SHA-256 of what follows: texts from outside may be longer than an index takes
    reason     text  NOT NULL,
    group_text text  NOT NULL,
    event_type text                    -- as the letters had it when they came
);

-- The number of a group, which is made where nobody has met it. Two collectors may meet it at once.
CREATE FUNCTION dead_letter_group(of_key bytea, of_reason text, of_text text, of_type text) RETURNS bigint
    LANGUAGE plpgsql SET search_path = public, pg_temp
AS $$
DECLARE
    found bigint;
BEGIN
    SELECT group_no INTO found FROM dead_letter_groups WHERE key = of_key;
    IF found IS NULL THEN
        INSERT INTO dead_letter_groups (key, reason, group_text, event_type) VALUES (of_key, of_reason, of_text, of_type)
            ON CONFLICT (key) DO NOTHING RETURNING group_no INTO found;
    END IF;
    IF found IS NULL THEN  -- the other one has committed it meanwhile
        SELECT group_no INTO found FROM dead_letter_groups WHERE key = of_key;
    END IF;
    RETURN found;
END $$;

CREATE TABLE dead_letters (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transport         text  NOT NULL CHECK (transport ~ '^[a-z][a-z0-9-]{0,31}$'),
    source_queue      text  NOT NULL,  -- where it came from, and where a replay sends it
    dead_letter_queue text  NOT NULL,
    body              bytea NOT NULL,  -- as it came, for ever
    body_sha256       bytea NOT NULL GENERATED ALWAYS AS (sha256(body)) STORED,
    edited_body       bytea,           -- what a replay sends instead
    headers           jsonb NOT NULL,  -- as text, for people
    envelope          jsonb NOT NULL,  -- headers and properties with their types, for sending again
    reason            text  NOT NULL,
    detail            text  NOT NULL,
    group_text        text  NOT NULL,  -- the detail without its values: what groups are made of
    group_no          bigint NOT NULL REFERENCES dead_letter_groups,
    failure           jsonb,
    -- Of what a replay sends: kept, so that a list of letters reads no body.
    edited            boolean NOT NULL GENERATED ALWAYS AS (edited_body IS NOT NULL) STORED,
    current_sha256    bytea NOT NULL GENERATED ALWAYS AS (sha256(coalesce(edited_body, body))) STORED,
    size              int   NOT NULL GENERATED ALWAYS AS (octet_length(coalesce(edited_body, body))) STORED,
    -- What the current body says of itself, read leniently; NULL where it does not.
    event_type        text,
    event_source      text,
    event_id          text,
    order_id          text,
    customer_id       text,
    status            text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'replaying', 'replayed', 'discarded')),
    first_seen        timestamptz NOT NULL,
    last_seen         timestamptz NOT NULL,
    times_seen        int  NOT NULL DEFAULT 1,
    arrival           text NOT NULL,   -- the broker's name for the copy that came last: tells a second look from a second copy
    -- Lives. Replay number n travels with the message; when it comes back, `returned` becomes n and a new life begins.
    life              int  NOT NULL DEFAULT 1,
    replays           int  NOT NULL DEFAULT 0,
    returned          int  NOT NULL DEFAULT 0,
    earlier_id        bigint REFERENCES dead_letters (id) ON DELETE SET NULL,  -- the letter whose edited replay this is
    sent_sha256       bytea,           -- of the body that the last replay sent
    same_body_replays int  NOT NULL DEFAULT 0,  -- how often in a row that body was replayed
    -- The claim of a replay. Its run holds an advisory lock for as long as it lives.
    claim_run         bigint,
    claimed_by        text,
    claimed_at        timestamptz,
    CONSTRAINT one_letter_a_body UNIQUE (transport, source_queue, body_sha256),
    CONSTRAINT claimed_while_replaying CHECK ((status = 'replaying') = (claim_run IS NOT NULL)),
    CONSTRAINT claim_is_whole CHECK (num_nulls(claim_run, claimed_by, claimed_at) IN (0, 3))
);
CREATE INDEX dead_letters_by_status ON dead_letters (status, last_seen);
CREATE INDEX dead_letters_by_group ON dead_letters (group_no);
CREATE INDEX dead_letters_earlier ON dead_letters (earlier_id) WHERE earlier_id IS NOT NULL;
CREATE INDEX dead_letters_by_order ON dead_letters (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX dead_letters_sent ON dead_letters (sent_sha256) WHERE sent_sha256 IS NOT NULL;

-- What somebody told us to do to letters, as one act: it can be stopped, gone on with by another process, and undone.
CREATE TABLE dead_letter_runs (
    run_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    act         text   NOT NULL CHECK (act IN ('edit', 'undo', 'replay', 'discard', 'restore')),
    status      text   NOT NULL CHECK (status IN ('waiting', 'ready', 'stopped', 'done')),
    actor       text   NOT NULL CHECK (actor <> ''),
    reason      text   NOT NULL DEFAULT '',
    began_at    timestamptz NOT NULL,
    ended_at    timestamptz,
    parameters  jsonb  NOT NULL,
    transports  text[] NOT NULL,             -- of its letters: who carries it on needs their brokers
    letters     int    NOT NULL,
    note        text   NOT NULL DEFAULT '',  -- why it was stopped, or by whom
    approved_by text,                        -- four eyes: a run that waits goes on when another one has approved it
    approved_at timestamptz,
    CONSTRAINT approved_by_another CHECK (approved_by <> actor),
    CONSTRAINT done_has_ended CHECK ((status = 'done') = (ended_at IS NOT NULL))
);
CREATE INDEX dead_letter_runs_unfinished ON dead_letter_runs (run_id) WHERE status = 'ready';

-- The letters of a run, chosen when it began, and what became of each. The trail outlives a letter, and so does this.
CREATE TABLE dead_letter_run_letters (
    run_id         bigint NOT NULL REFERENCES dead_letter_runs,
    dead_letter_id bigint NOT NULL,          -- of what somebody named, whether there is such a letter or not
    state          text   NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'refused')),
    status         text   NOT NULL DEFAULT '',  -- the letter's, afterwards
    detail         text   NOT NULL DEFAULT '',  -- why it was refused, or why it has to be tried again
    before         bytea,                    -- an edit: the edited body that it found, NULL the original
    after          bytea,                    -- ... and the one that it left
    PRIMARY KEY (run_id, dead_letter_id)
);
CREATE INDEX dead_letter_run_letters_of_letter ON dead_letter_run_letters (dead_letter_id);

-- Who did what, when and why. Never edited. It holds no body, and it outlives its letter.
CREATE TABLE dead_letter_audit (
    act_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dead_letter_id bigint NOT NULL,
    run_id         bigint REFERENCES dead_letter_runs,
    act            text   NOT NULL CHECK (act IN ('collected', 'imported', 'returned', 'reopened', 'edited', 'undone', 'claimed',
        'sent', 'not-sent', 'discarded', 'restored', 'corrected', 'purged')),
    actor          text   NOT NULL CHECK (actor <> ''),
    acted_at       timestamptz NOT NULL,
    reason         text   NOT NULL DEFAULT '',
    before         jsonb  NOT NULL,
    after          jsonb  NOT NULL
);
CREATE INDEX dead_letter_audit_of_letter ON dead_letter_audit (dead_letter_id, act_id);
CREATE INDEX dead_letter_audit_of_run ON dead_letter_audit (run_id, act_id) WHERE run_id IS NOT NULL;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON dead_letter_audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- The original outlives every edit, whoever writes; and what was collected was deleted from its broker, so this is the
-- only copy. Closed letters alone may go, when nobody needs them any more.
CREATE TRIGGER original_is_kept BEFORE UPDATE OF body, transport, source_queue, first_seen OR TRUNCATE
    ON dead_letters FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER unfinished_is_kept BEFORE DELETE ON dead_letters FOR EACH ROW
    WHEN (OLD.status NOT IN ('replayed', 'discarded')) EXECUTE FUNCTION refuse_change();

GRANT SELECT ON dead_letter_groups, dead_letter_runs, dead_letter_run_letters TO incentives_app;
GRANT SELECT, INSERT ON dead_letters, dead_letter_audit TO incentives_app;
GRANT INSERT ON dead_letter_groups, dead_letter_runs, dead_letter_run_letters TO incentives_app;
GRANT DELETE ON dead_letters TO incentives_app;
GRANT UPDATE (dead_letter_queue, edited_body, headers, envelope, reason, detail, group_text, group_no, failure, event_type,
    event_source, event_id, order_id, customer_id, status, last_seen, times_seen, arrival, life, replays, returned, earlier_id,
    sent_sha256, same_body_replays, claim_run, claimed_by, claimed_at) ON dead_letters TO incentives_app;
GRANT UPDATE (status, ended_at, note, approved_by, approved_at) ON dead_letter_runs TO incentives_app;
GRANT UPDATE (state, status, detail, before, after) ON dead_letter_run_letters TO incentives_app;

-- ── People ───────────────────────────────────────────────────────────────────────────────────────────────────────────
-- Roles that a database administrator grants to logins with the names of people; the application's login has none of them.
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['incentives_viewer', 'incentives_support', 'incentives_operator', 'incentives_approver'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- made at the same moment by another database's migration: that is the same role
        END;
    END LOOP;
END $$;

-- Roles are the server's. Where another ledger's owner made them they have each other already, and this one may not grant them.
DO $$
DECLARE
    pair text[];
BEGIN
    FOREACH pair SLICE 1 IN ARRAY ARRAY[['incentives_viewer', 'incentives_support'],
            ['incentives_support', 'incentives_operator'], ['incentives_support', 'incentives_approver']] LOOP
        IF NOT EXISTS (SELECT FROM pg_auth_members
                WHERE roleid = to_regrole(pair[1]) AND member = to_regrole(pair[2])) THEN
            EXECUTE format('GRANT %I TO %I', pair[1], pair[2]);
        END IF;
    END LOOP;
END $$;

-- A person is who is logged in. A login that may take the application's role acts for others, and says for whom.
CREATE FUNCTION keep_actor() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp
AS $$
DECLARE
    named text := to_jsonb(NEW) ->> TG_ARGV[0];
BEGIN
    IF named <> session_user AND NOT pg_has_role(session_user, 'incentives_app', 'MEMBER') THEN
        RAISE EXCEPTION 'the login % acts as %, not as %', session_user, session_user, named
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_actor BEFORE INSERT ON dead_letter_audit FOR EACH ROW
    WHEN (current_user <> 'incentives_app') EXECUTE FUNCTION keep_actor('actor');
CREATE TRIGGER keep_actor BEFORE INSERT ON dead_letter_runs FOR EACH ROW
    WHEN (current_user <> 'incentives_app') EXECUTE FUNCTION keep_actor('actor');
CREATE TRIGGER keep_approver BEFORE UPDATE OF approved_by ON dead_letter_runs FOR EACH ROW
    WHEN (current_user <> 'incentives_app' AND NEW.approved_by IS NOT NULL) EXECUTE FUNCTION keep_actor('approved_by');

-- A run that waits for an approval goes on with one, whoever asks.
CREATE FUNCTION keep_approval() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'run % needs an approval', NEW.run_id USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER keep_approval BEFORE UPDATE OF status ON dead_letter_runs FOR EACH ROW
    WHEN (NEW.status IN ('ready', 'done') AND NEW.approved_by IS NULL AND NEW.parameters @> '{"needs_approval": true}')
    EXECUTE FUNCTION keep_approval();

-- Viewers see what is the matter and what was done, and nothing that came with a message. What people may see beyond that
-- begins with support, which answers customers' questions: bodies, orders, wallets.
GRANT USAGE ON SCHEMA public TO incentives_viewer;
GRANT SELECT ON alembic_version, dead_letter_groups, dead_letter_runs, dead_letter_audit TO incentives_viewer;
GRANT SELECT (run_id, dead_letter_id, state, status, detail) ON dead_letter_run_letters TO incentives_viewer;
GRANT SELECT (id, transport, source_queue, dead_letter_queue, body_sha256, reason, detail, group_text, group_no, edited,
    current_sha256, size, event_type, event_source, event_id, order_id, customer_id, status, first_seen, last_seen, times_seen,
    arrival, life, replays, returned, earlier_id, sent_sha256, same_body_replays, claim_run, claimed_by, claimed_at)
    ON dead_letters TO incentives_viewer;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO incentives_support;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO incentives_support;  -- and on those of later revisions
-- Operators change and send letters. They write nothing in the ledger, approve nothing and delete nothing.
GRANT INSERT ON dead_letter_groups, dead_letters, dead_letter_runs, dead_letter_run_letters, dead_letter_audit
    TO incentives_operator;
GRANT UPDATE (edited_body, event_type, event_source, event_id, order_id, customer_id, status, life, replays, returned,
    earlier_id, sent_sha256, same_body_replays, claim_run, claimed_by, claimed_at) ON dead_letters TO incentives_operator;
GRANT UPDATE (status, ended_at, note) ON dead_letter_runs TO incentives_operator;
GRANT UPDATE (state, status, detail, before, after) ON dead_letter_run_letters TO incentives_operator;
-- Approvers let runs of others go on, and delete what is closed. They begin nothing.
GRANT UPDATE (status, approved_by, approved_at) ON dead_letter_runs TO incentives_approver;
GRANT INSERT ON dead_letter_audit TO incentives_approver;
GRANT UPDATE (before, after) ON dead_letter_run_letters TO incentives_approver;
GRANT DELETE ON dead_letters TO incentives_approver;
