-- The ledger. Every rule that money depends on is refused here, by the schema, whatever program writes.

-- ── Campaigns ────────────────────────────────────────────────────────────────────────────────────────────────────────
-- Each version of a campaign's terms is kept for ever; an order's decision names the versions it used.
CREATE TABLE campaign_versions (
    campaign_id text NOT NULL,
    version     int  NOT NULL,
    terms       jsonb NOT NULL,
    loaded_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, version)
);

-- The current version. Its row is locked by whoever decides against a `total` or a `budget`.
CREATE TABLE campaigns (
    campaign_id text PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('coupon', 'earn', 'make_good', 'grant')),
    currency    text NOT NULL,
    code        text UNIQUE DEFERRABLE INITIALLY DEFERRED,  -- coupons only, upper case; two may swap in one load
    version     int  NOT NULL,
    FOREIGN KEY (campaign_id, version) REFERENCES campaign_versions (campaign_id, version),
    CHECK ((kind = 'coupon') = (code IS NOT NULL))
);

-- One row. A batch compares the revision with the one it has in memory and reads the terms again only when it moved.
CREATE TABLE campaign_revision (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision bigint NOT NULL
);
INSERT INTO campaign_revision (revision) VALUES (0);

-- ── Facts and orders ─────────────────────────────────────────────────────────────────────────────────────────────────
-- The row that every fact of an order locks first. It exists before the placing when a refund or delivery came early.
-- `progress` holds the running totals behind the next reversal; NULL until something was reversed or delivered.
CREATE TABLE orders (
    order_id text PRIMARY KEY,
    progress json
) WITH (fillfactor = 25);  -- most orders are delivered, and their progress then fits beside the row: all updates HOT

-- Validated events, kept for ever. `fact` is the identity within the order: 'placing', 'delivery', 'refund:<refund_id>'.
CREATE TABLE facts (
    order_id    text  NOT NULL,
    fact        text  NOT NULL,
    source      text  NOT NULL,
    event_id    text  NOT NULL,
    digest      bytea NOT NULL CHECK (length(digest) = 32),
    traceparent text,
    happened_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    data        json  NOT NULL,
    PRIMARY KEY (order_id, fact),      -- SPEC 2: one fact per identity
    UNIQUE (event_id, source)          -- SPEC 2: one event per identity; event_id first, because sources are few
);

-- Facts whose placing has not come. A row leaves in the transaction that stores the placing.
CREATE TABLE waiting (
    order_id text NOT NULL,
    fact     text NOT NULL,
    since    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (order_id, fact)
);

-- What was decided at the placing: shares per line, refusals, lots burned, versions of the terms. Never edited.
CREATE TABLE decisions (
    order_id    text PRIMARY KEY,
    customer_id text NOT NULL,
    currency    text NOT NULL,
    decision    json NOT NULL
);

CREATE TABLE anomalies (
    order_id    text NOT NULL,
    reason      text NOT NULL,
    subject     text NOT NULL,  -- the line, or the fact where the whole fact is odd
    noticed_at  timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    resolved_by text,
    resolution  text,
    PRIMARY KEY (order_id, reason, subject),
    CHECK ((resolved_at IS NULL) = (resolution IS NULL))
);
CREATE INDEX anomalies_open ON anomalies (noticed_at) WHERE resolved_at IS NULL;

-- ── Money ────────────────────────────────────────────────────────────────────────────────────────────────────────────
-- A transfer is one row, so it cannot be unbalanced. The kind fixes which way it runs (SPEC 3).
-- `cause` names the fact of the order, or the operator's command: 'grant:<key>', 'grant-reversal:<key>', 'expiry'.
CREATE TABLE transfers (
    transfer_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind           text   NOT NULL,
    debit_account  text   NOT NULL,
    credit_account text   NOT NULL,
    currency       text   NOT NULL,
    amount         bigint NOT NULL CHECK (amount > 0),
    customer_id    text   NOT NULL,
    order_id       text,
    lot_no         int,
    cause          text   NOT NULL,
    happened_at    timestamptz NOT NULL,
    booked_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT two_accounts CHECK (debit_account <> credit_account),
    CONSTRAINT kind_fixes_direction CHECK (
        CASE kind
            WHEN 'grant'           THEN starts_with(debit_account, 'campaign:') AND starts_with(credit_account, 'wallet:')
            WHEN 'grant_reversal'  THEN starts_with(debit_account, 'wallet:')   AND starts_with(credit_account, 'campaign:')
            WHEN 'coupon'          THEN starts_with(debit_account, 'campaign:') AND starts_with(credit_account, 'order:')
            WHEN 'credit'          THEN starts_with(debit_account, 'wallet:')   AND starts_with(credit_account, 'order:')
            WHEN 'earn'            THEN starts_with(debit_account, 'campaign:') AND starts_with(credit_account, 'pending:')
            WHEN 'vest'            THEN starts_with(debit_account, 'pending:')  AND starts_with(credit_account, 'wallet:')
            WHEN 'coupon_reversal' THEN starts_with(debit_account, 'order:')    AND starts_with(credit_account, 'campaign:')
            WHEN 'credit_return'   THEN starts_with(debit_account, 'order:')    AND starts_with(credit_account, 'wallet:')
            WHEN 'earn_cancel'     THEN starts_with(debit_account, 'pending:')  AND starts_with(credit_account, 'campaign:')
            WHEN 'clawback'        THEN starts_with(debit_account, 'wallet:')   AND starts_with(credit_account, 'campaign:')
            WHEN 'clawback_debt'   THEN starts_with(debit_account, 'debt:')     AND starts_with(credit_account, 'campaign:')
            WHEN 'debt_settlement' THEN starts_with(debit_account, 'wallet:')   AND starts_with(credit_account, 'debt:')
            WHEN 'make_good'       THEN starts_with(debit_account, 'campaign:') AND starts_with(credit_account, 'wallet:')
            WHEN 'expiry'          THEN starts_with(debit_account, 'wallet:')   AND credit_account = 'breakage'
            ELSE false
        END)
);
-- One index answers both "this customer's wallet" and "this order": every transfer has a customer.
CREATE INDEX transfers_customer_order ON transfers (customer_id, order_id);

-- What each account holds, positive on its normal side. Written by the trigger on transfers and by nothing else: the
-- application's role cannot touch it. Campaigns and breakage are spread over slots, summed on read, so that no row is hot.
CREATE TABLE balances (
    account  text     NOT NULL,
    currency text     NOT NULL,
    slot     smallint NOT NULL,
    balance  bigint   NOT NULL,
    PRIMARY KEY (account, currency, slot),
    CONSTRAINT never_negative CHECK (balance >= 0 OR starts_with(account, 'campaign:'))
) WITH (fillfactor = 70);

CREATE VIEW accounts AS
SELECT account, currency,
       CASE WHEN starts_with(account, 'campaign:') OR starts_with(account, 'debt:') THEN 'debit' ELSE 'credit' END AS normal_side,
       sum(balance)::bigint AS balance
FROM balances GROUP BY account, currency;

-- The row that guards a wallet, its lots, its debt and the customer's redemptions. Never changed, only locked.
CREATE TABLE wallets (
    customer_id text NOT NULL,
    currency    text NOT NULL,
    PRIMARY KEY (customer_id, currency)
);

-- Parcels of credit. lot_no counts within the wallet under its lock, so a smaller number was created first.
CREATE TABLE lots (
    customer_id   text   NOT NULL,
    currency      text   NOT NULL,
    lot_no        int    NOT NULL,
    campaign_id   text   NOT NULL,
    amount        bigint NOT NULL CHECK (amount > 0),
    remaining     bigint NOT NULL,
    expired       bigint NOT NULL DEFAULT 0 CHECK (expired >= 0),  -- what went to breakage
    expires_at    timestamptz,                                     -- NULL never expires
    reissue_days  int    NOT NULL,
    root_lot_no   int    NOT NULL,  -- the first lot of a chain of reissues; its own number when it is none
    reissued_from int,
    order_id      text,
    cause         text   NOT NULL,
    created_at    timestamptz NOT NULL,
    live          boolean GENERATED ALWAYS AS (remaining > 0) STORED,
    PRIMARY KEY (customer_id, currency, lot_no),
    CONSTRAINT holds_what_it_can CHECK (remaining BETWEEN 0 AND amount)
) WITH (fillfactor = 80);
-- On `live`, not on `remaining`: a burn that leaves something stays a HOT update.
CREATE INDEX lots_live ON lots (customer_id, currency) WHERE live;

-- Each burn is the transfer that made it: credit from a lot to an order.
CREATE VIEW burns AS
SELECT customer_id, currency, lot_no, order_id, amount, happened_at, booked_at, transfer_id
FROM transfers WHERE kind = 'credit';

-- Uses of coupons. Live until all of the discount on the order was reversed.
CREATE TABLE redemptions (
    campaign_id text   NOT NULL,
    customer_id text   NOT NULL,
    order_id    text   NOT NULL,
    discount    bigint NOT NULL CHECK (discount > 0),
    redeemed_at timestamptz NOT NULL,
    released_at timestamptz,
    PRIMARY KEY (campaign_id, customer_id, order_id)
) WITH (fillfactor = 90);

-- Live redemptions of a campaign, kept by a trigger, spread like balances.
CREATE TABLE redemption_counts (
    campaign_id text     NOT NULL,
    slot        smallint NOT NULL,
    live        bigint   NOT NULL,
    PRIMARY KEY (campaign_id, slot)
) WITH (fillfactor = 70);

CREATE TABLE grants (
    key              text PRIMARY KEY,
    customer_id      text   NOT NULL,
    currency         text   NOT NULL,
    amount           bigint NOT NULL CHECK (amount > 0),
    campaign_id      text   NOT NULL,
    expires_at       timestamptz,
    lot_no           int    NOT NULL,
    granted_at       timestamptz NOT NULL,
    reversed_at      timestamptz,
    reversal_reason  text,
    reversed_minor   bigint,
    CHECK ((reversed_at IS NULL) = (reversal_reason IS NULL) AND (reversed_at IS NULL) = (reversed_minor IS NULL))
);

-- ── Outcomes ─────────────────────────────────────────────────────────────────────────────────────────────────────────
-- Whole CloudEvents as they are to be published. Kept: an order's history is told from here.
CREATE TABLE outbox (
    outbox_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id   text NOT NULL,
    fact       text NOT NULL,
    sequence   int  NOT NULL,  -- number of the outcome within its order
    type       text NOT NULL,
    body       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_order ON outbox (order_id, fact);

-- Where outcomes go. A shop that has one broker only deletes the other's row.
CREATE TABLE destinations (destination text PRIMARY KEY CHECK (destination IN ('sns', 'rabbitmq')));
INSERT INTO destinations VALUES ('sns'), ('rabbitmq');

-- The unpublished mark: a row for each destination that has not confirmed yet. Picked with SKIP LOCKED, never by an id
-- cursor: identity values commit out of order, and a cursor would step over the late ones.
CREATE TABLE outbox_unpublished (
    destination text   NOT NULL,
    outbox_id   bigint NOT NULL,
    PRIMARY KEY (destination, outbox_id)
);

-- Unexpected errors of messages that cannot carry a count themselves (SQS).
CREATE TABLE attempts (
    queue       text NOT NULL,
    message_id  text NOT NULL,
    attempts    int  NOT NULL CHECK (attempts > 0),
    error_class text NOT NULL,
    message     text NOT NULL,
    traceback   text NOT NULL,
    host        text NOT NULL,
    first_at    timestamptz NOT NULL,
    last_at     timestamptz NOT NULL,
    PRIMARY KEY (queue, message_id)
);

-- ── Triggers ─────────────────────────────────────────────────────────────────────────────────────────────────────────
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON transfers
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON facts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON decisions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON campaign_versions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Balances follow transfers in the same statement, once a statement. Accounts of one customer or order are updated in
-- place: the caller holds the lock that guards them. Slotted accounts have no such guard, so they are taken in sorted
-- order by the INSERT, which also serves accounts that are new; two batches can then never wait for each other in a ring.
--
-- The deltas pass through arrays and the planner is held to index look-ups, because the plan is made when the tables are
-- young and kept: joined as a subquery, a batch was once compared with every account there was.
CREATE FUNCTION post_transfers() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    my_slot CONSTANT smallint := 1 + pg_backend_pid() % 16;
    accounts   text[];
    currencies text[];
    slots      smallint[];
    deltas     bigint[];
BEGIN
    SELECT array_agg(side.account), array_agg(side.currency), array_agg(side.slot), array_agg(side.delta)
    INTO accounts, currencies, slots, deltas
    FROM (
        SELECT each.account, each.currency, CASE WHEN each.slotted THEN my_slot ELSE 0 END AS slot, sum(each.delta) AS delta
        FROM (
            SELECT debit_account AS account, currency, starts_with(debit_account, 'campaign:') AS slotted,
                   CASE WHEN starts_with(debit_account, 'campaign:') OR starts_with(debit_account, 'debt:')
                        THEN amount ELSE -amount END AS delta
            FROM posted
            UNION ALL
            SELECT credit_account, currency, starts_with(credit_account, 'campaign:') OR credit_account = 'breakage',
                   CASE WHEN starts_with(credit_account, 'campaign:') OR starts_with(credit_account, 'debt:')
                        THEN -amount ELSE amount END
            FROM posted
        ) AS each
        GROUP BY each.account, each.currency, each.slotted
        ORDER BY each.account, each.currency
    ) AS side;

    UPDATE balances SET balance = balances.balance + change.delta
    FROM unnest(accounts, currencies, deltas, slots) AS change (account, currency, delta, slot)
    WHERE change.slot = 0 AND balances.slot = 0
      AND balances.account = change.account AND balances.currency = change.currency;

    INSERT INTO balances (account, currency, slot, balance)
    SELECT change.account, change.currency, change.slot, change.delta
    FROM unnest(accounts, currencies, deltas, slots) AS change (account, currency, delta, slot)
    WHERE change.slot <> 0 OR NOT EXISTS (
        SELECT FROM balances
        WHERE balances.account = change.account AND balances.currency = change.currency AND balances.slot = 0
    )
    ON CONFLICT (account, currency, slot) DO UPDATE SET balance = balances.balance + excluded.balance;
    RETURN NULL;
END $$;
CREATE TRIGGER post AFTER INSERT ON transfers REFERENCING NEW TABLE AS posted
    FOR EACH STATEMENT EXECUTE FUNCTION post_transfers();

CREATE FUNCTION count_redemptions() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO redemption_counts (campaign_id, slot, live)
    SELECT campaign_id, 1 + pg_backend_pid() % 16, CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
    FROM changed GROUP BY campaign_id ORDER BY campaign_id
    ON CONFLICT (campaign_id, slot) DO UPDATE SET live = redemption_counts.live + excluded.live;
    RETURN NULL;
END $$;
CREATE TRIGGER count_new AFTER INSERT ON redemptions REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION count_redemptions();
CREATE TRIGGER count_released AFTER UPDATE ON redemptions REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION count_redemptions();

CREATE FUNCTION refuse_second_release() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'redemption of % on order % was released already, or is not being released', OLD.campaign_id, OLD.order_id
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER release_once BEFORE UPDATE ON redemptions FOR EACH ROW
    WHEN (OLD.released_at IS NOT NULL OR NEW.released_at IS NULL) EXECUTE FUNCTION refuse_second_release();

CREATE FUNCTION mark_unpublished() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO outbox_unpublished (destination, outbox_id)
    SELECT destination, outbox_id FROM added CROSS JOIN destinations ORDER BY destination, outbox_id;
    RETURN NULL;
END $$;
CREATE TRIGGER mark AFTER INSERT ON outbox REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION mark_unpublished();

-- ── The application's role ───────────────────────────────────────────────────────────────────────────────────────────
-- It owns nothing, so it can disable no trigger and drop no constraint. Roles belong to the whole server: another
-- database's migration may have made it, or be making it now.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'incentives_app') THEN
        CREATE ROLE incentives_app NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- made at the same moment by another database's migration: that is the same role
END $$;

GRANT USAGE ON SCHEMA public TO incentives_app;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO incentives_app;
GRANT INSERT ON campaign_versions, campaigns, orders, waiting, decisions, anomalies, wallets, lots, redemptions, grants,
    attempts TO incentives_app;
-- Column by column: when something was booked, recorded or numbered is the database's to say.
GRANT INSERT (kind, debit_account, credit_account, currency, amount, customer_id, order_id, lot_no, cause, happened_at)
    ON transfers TO incentives_app;
GRANT INSERT (order_id, fact, source, event_id, digest, traceparent, happened_at, data) ON facts TO incentives_app;
GRANT INSERT (order_id, fact, sequence, type, body) ON outbox TO incentives_app;
GRANT UPDATE ON wallets, attempts TO incentives_app;  -- a row lock needs the privilege
GRANT UPDATE (kind, currency, code, version) ON campaigns TO incentives_app;
GRANT UPDATE (revision) ON campaign_revision TO incentives_app;
GRANT UPDATE (progress) ON orders TO incentives_app;
GRANT UPDATE (remaining, expired) ON lots TO incentives_app;
GRANT UPDATE (released_at) ON redemptions TO incentives_app;
GRANT UPDATE (resolved_at, resolved_by, resolution) ON anomalies TO incentives_app;
GRANT UPDATE (reversed_at, reversal_reason, reversed_minor) ON grants TO incentives_app;
GRANT UPDATE (destination) ON outbox_unpublished TO incentives_app;  -- SKIP LOCKED takes a row lock
GRANT DELETE ON waiting, outbox_unpublished, attempts TO incentives_app;
