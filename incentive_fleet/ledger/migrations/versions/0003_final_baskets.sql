-- Final baskets, code pools, audiences, holds, and grants by event. What a release before this one needs stays as it is.

-- ── Final baskets ────────────────────────────────────────────────────────────────────────────────────────────────────
-- What an estimated order's final basket came to, beside the placing's decision and in the same form. Never edited.
CREATE TABLE final_baskets (
    order_id text PRIMARY KEY,
    decision json NOT NULL
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON final_baskets
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Why an operator took a placing's lines for the final basket.
CREATE TABLE finalized_as_placed (
    order_id     text PRIMARY KEY,
    reason       text NOT NULL,
    finalized_by text NOT NULL DEFAULT session_user,
    finalized_at timestamptz NOT NULL DEFAULT now()
);

-- An order's placing beside the basket that counts. `booked` is the decision whose shares were booked and are reversed: the
-- placing's where everything had been reversed before the final basket came, for then nothing was booked for that.
CREATE VIEW baskets AS
SELECT d.order_id, d.customer_id, d.currency, d.decision AS placed, coalesce(f.decision, d.decision) AS counts,
       CASE WHEN after.all_reversed THEN d.decision ELSE coalesce(f.decision, d.decision) END AS booked,
       f.order_id IS NOT NULL AS finalized, after.all_reversed
FROM decisions AS d LEFT JOIN final_baskets AS f USING (order_id),
    LATERAL (SELECT coalesce((f.decision ->> 'all_reversed')::boolean, false) AS all_reversed) AS after;

-- In which order facts took effect, as far as they could meet: drawn under the locks that the fact took. NULL for facts of
-- an earlier release. A default on a column that is there already: no row is rewritten.
CREATE SEQUENCE fact_numbers;
ALTER TABLE facts ADD COLUMN fact_no bigint;
ALTER TABLE facts ALTER COLUMN fact_no SET DEFAULT nextval('fact_numbers');

-- ── First orders ─────────────────────────────────────────────────────────────────────────────────────────────────────
-- Whether an order counted when it was placed; what has changed since has a row of its own. A release before this one
-- wrote decisions without it: they had goods alone, so all but the empty ones counted.
ALTER TABLE decisions ADD COLUMN counts boolean NOT NULL DEFAULT true;
CREATE INDEX decisions_counting ON decisions (customer_id, currency) WHERE counts;

CREATE TABLE counting_changes (
    order_id    text PRIMARY KEY,
    customer_id text    NOT NULL,
    currency    text    NOT NULL,
    counts      boolean NOT NULL
);
CREATE INDEX counting_changes_counting ON counting_changes (customer_id, currency) WHERE counts;

-- ── Terms ────────────────────────────────────────────────────────────────────────────────────────────────────────────
ALTER TABLE campaigns DROP CONSTRAINT campaigns_check;
ALTER TABLE campaigns ADD CONSTRAINT codes_are_of_coupons CHECK (kind = 'coupon' OR code IS NULL);

-- Each version of the campaign file's [credit] table; the highest is the current one.
CREATE TABLE credit_terms (
    version   int PRIMARY KEY,
    terms     jsonb NOT NULL,
    loaded_at timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON credit_terms
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- ── Codes and audiences ──────────────────────────────────────────────────────────────────────────────────────────────
-- Codes of campaigns with a pool, upper case, each good for one live redemption, whose order it names. Its row is locked by
-- whoever redeems or releases it, after the campaigns.
CREATE TABLE codes (
    code          text PRIMARY KEY,
    campaign_id   text NOT NULL REFERENCES campaigns,
    batch         text,  -- of generated ones
    customer_id   text,  -- whom it is bound to
    expires_at    timestamptz,
    order_id      text,
    revoked_at    timestamptz,
    revoke_reason text,
    CHECK ((revoked_at IS NULL) = (revoke_reason IS NULL))
) WITH (fillfactor = 90);
CREATE INDEX codes_of_order ON codes (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX codes_of_batch ON codes (campaign_id, batch) WHERE batch IS NOT NULL;

-- How many codes a batch is to have; those that are there say how far it has come.
CREATE TABLE code_batches (
    campaign_id text NOT NULL REFERENCES campaigns,
    batch       text NOT NULL,
    codes       int  NOT NULL CHECK (codes > 0),
    PRIMARY KEY (campaign_id, batch)
);

CREATE TABLE audience_members (
    audience    text NOT NULL,
    customer_id text NOT NULL,
    PRIMARY KEY (audience, customer_id)
);

-- ── Holds ────────────────────────────────────────────────────────────────────────────────────────────────────────────
-- Customers whose credit may not be applied, in no currency; what is over keeps its row.
CREATE TABLE wallet_holds (
    hold_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id    text NOT NULL,
    reason         text NOT NULL,
    held_at        timestamptz NOT NULL DEFAULT now(),
    held_by        text NOT NULL DEFAULT session_user,
    released_at    timestamptz,
    release_reason text,
    released_by    text,
    CHECK ((released_at IS NULL) = (release_reason IS NULL) AND (released_at IS NULL) = (released_by IS NULL))
);
CREATE UNIQUE INDEX wallet_holds_held ON wallet_holds (customer_id) WHERE released_at IS NULL;

-- Which days of expiring credit were announced, by how far a run looked ahead.
CREATE TABLE reminders (
    customer_id text NOT NULL,
    currency    text NOT NULL,
    day         date NOT NULL,
    days        int  NOT NULL,
    PRIMARY KEY (customer_id, currency, day, days)
);

-- ── Privileges ───────────────────────────────────────────────────────────────────────────────────────────────────────
GRANT SELECT ON final_baskets, baskets, counting_changes, credit_terms, codes, code_batches, audience_members, wallet_holds,
    reminders, finalized_as_placed TO incentives_app;
GRANT INSERT ON final_baskets, counting_changes, code_batches, audience_members, reminders TO incentives_app;
GRANT INSERT (version, terms) ON credit_terms TO incentives_app;
GRANT INSERT (code, campaign_id, batch, customer_id, expires_at) ON codes TO incentives_app;
GRANT UPDATE (order_id, revoked_at, revoke_reason) ON codes TO incentives_app;
GRANT UPDATE (counts) ON counting_changes TO incentives_app;
GRANT DELETE ON audience_members TO incentives_app;
GRANT INSERT (order_id, reason) ON finalized_as_placed TO incentives_app;
GRANT UPDATE (reason) ON finalized_as_placed TO incentives_app;
GRANT INSERT (customer_id, reason) ON wallet_holds TO incentives_app;
GRANT UPDATE (released_at, release_reason, released_by) ON wallet_holds TO incentives_app;
GRANT USAGE ON fact_numbers TO incentives_app;

-- ── How everything stands ────────────────────────────────────────────────────────────────────────────────────────────
-- The class of an error tells what is the matter; what stands beside it came with the message.
CREATE VIEW open_dead_letters AS
    SELECT reason, failure ->> 'error_class' AS error_class, first_seen, last_seen FROM dead_letters
    WHERE status IN ('open', 'replaying');
GRANT SELECT ON open_dead_letters TO incentives_app, incentives_viewer;
-- These two came into 0001 after some ledgers had been made by it, which have had no status since.
CREATE TABLE IF NOT EXISTS serving_processes (
    process_id uuid PRIMARY KEY,
    host       text NOT NULL,
    pid        int  NOT NULL,
    activity   text NOT NULL,
    release    text NOT NULL,
    began_at   timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    figures    jsonb NOT NULL
);
CREATE TABLE IF NOT EXISTS status_looks (
    looker    text PRIMARY KEY,
    looked_at timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON serving_processes, status_looks TO incentives_app;
-- Whoever is called at night looks at the status first, by a login of their own: counts, ages and processes, and when they looked.
GRANT SELECT ON serving_processes, status_looks, job_runs, destinations, outbox_unpublished TO incentives_viewer;
GRANT SELECT (since) ON waiting TO incentives_viewer;
GRANT SELECT (reason, resolved_at) ON anomalies TO incentives_viewer;
GRANT SELECT (outbox_id, created_at) ON outbox TO incentives_viewer;
GRANT INSERT, UPDATE, DELETE ON status_looks TO incentives_viewer;
