-- Dead letters, brought here from the brokers' own dead-letter queues so that people can search, edit and replay them.

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
    failure           jsonb,
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
    earlier_id        bigint REFERENCES dead_letters (id),  -- the letter whose edited replay this is
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
CREATE INDEX dead_letters_by_order ON dead_letters (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX dead_letters_sent ON dead_letters (transport, source_queue, sent_sha256) WHERE sent_sha256 IS NOT NULL;

-- Numbers the runs of `replay`.
CREATE SEQUENCE dead_letter_runs;

-- Who did what, when and why. Never edited.
CREATE TABLE dead_letter_audit (
    act_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dead_letter_id bigint NOT NULL REFERENCES dead_letters (id),
    act            text   NOT NULL CHECK (act IN
        ('collected', 'returned', 'reopened', 'edited', 'claimed', 'sent', 'not-sent', 'discarded', 'restored')),
    actor          text   NOT NULL CHECK (actor <> ''),
    acted_at       timestamptz NOT NULL,
    reason         text   NOT NULL DEFAULT '',
    before         jsonb  NOT NULL,
    after          jsonb  NOT NULL
);
CREATE INDEX dead_letter_audit_of_letter ON dead_letter_audit (dead_letter_id, act_id);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON dead_letter_audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- The original outlives every edit, whoever writes; and what was collected was deleted from its broker, so this is the
-- only copy.
CREATE TRIGGER original_is_kept BEFORE UPDATE OF body, transport, source_queue, first_seen OR DELETE OR TRUNCATE
    ON dead_letters FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT, INSERT ON dead_letters, dead_letter_audit TO incentives_app;
GRANT USAGE ON SEQUENCE dead_letter_runs TO incentives_app;
GRANT UPDATE (dead_letter_queue, edited_body, headers, envelope, reason, detail, group_text, failure, event_type, event_source,
    event_id, order_id, customer_id, status, last_seen, times_seen, arrival, life, replays, returned, earlier_id,
    sent_sha256, same_body_replays, claim_run, claimed_by, claimed_at) ON dead_letters TO incentives_app;
