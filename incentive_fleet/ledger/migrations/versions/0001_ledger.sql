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
-- `totals` are the running totals behind the next reversal, by name and with their format; NULL until something was
-- reversed or delivered.
CREATE TABLE orders (
    order_id text PRIMARY KEY,
    totals   json
) WITH (fillfactor = 25);  -- most orders are delivered, and their totals then fit beside the row: all updates HOT

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
    PRIMARY KEY (order_id, fact),      -- rules 2.3: one fact per identity
    UNIQUE (event_id, source)          -- rules 2.3: one event per identity; event_id first, because sources are few
);

-- Facts whose placing has not come. A row leaves in the transaction that stores the placing.
CREATE TABLE waiting (
    order_id text NOT NULL,
    fact     text NOT NULL,
    since    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (order_id, fact)
);

-- What was decided at the placing: shares per line, refusals, lots burned, versions of the terms; by name and with its
-- format (incentives/decision.py). Never edited.
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
    claimed     bigint,         -- minor units of the line's gross that facts claim back, where its gross is exceeded
    noticed_at  timestamptz NOT NULL DEFAULT now(),  -- since when it is open, or was until it was resolved
    resolved_at timestamptz,
    resolved_by text,
    resolution  text,
    PRIMARY KEY (order_id, reason, subject),
    CHECK ((resolved_at IS NULL) = (resolution IS NULL))
);
CREATE INDEX anomalies_open ON anomalies (noticed_at) WHERE resolved_at IS NULL;

-- Every resolution there ever was: an anomaly that is exceeded further is open again, and what was said of it before stays.
CREATE TABLE anomaly_resolutions (
    order_id    text NOT NULL,
    reason      text NOT NULL,
    subject     text NOT NULL,
    noticed_at  timestamptz NOT NULL,
    resolved_at timestamptz NOT NULL,
    resolved_by text NOT NULL,
    resolution  text NOT NULL
);
CREATE INDEX anomaly_resolutions_of ON anomaly_resolutions (order_id, reason, subject);

-- ── Money ────────────────────────────────────────────────────────────────────────────────────────────────────────────
-- A transfer is one row, so it cannot be unbalanced. The kind fixes which way it runs (rules 3.2).
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
    CONSTRAINT kind_fixes_direction CHECK (CASE kind
        WHEN 'grant'           THEN starts_with(debit_account, 'campaign:') AND credit_account = 'wallet:' || customer_id
        WHEN 'grant_reversal'  THEN debit_account = 'wallet:' || customer_id AND starts_with(credit_account, 'campaign:')
        WHEN 'coupon'          THEN starts_with(debit_account, 'campaign:') AND credit_account = 'order:' || order_id
        WHEN 'credit'          THEN debit_account = 'wallet:' || customer_id AND credit_account = 'order:' || order_id
        WHEN 'earn'            THEN starts_with(debit_account, 'campaign:') AND credit_account = 'pending:' || customer_id
        WHEN 'vest'            THEN debit_account = 'pending:' || customer_id AND credit_account = 'wallet:' || customer_id
        WHEN 'coupon_reversal' THEN debit_account = 'order:' || order_id AND starts_with(credit_account, 'campaign:')
        WHEN 'credit_return'   THEN debit_account = 'order:' || order_id AND credit_account = 'wallet:' || customer_id
        WHEN 'earn_cancel'     THEN debit_account = 'pending:' || customer_id AND starts_with(credit_account, 'campaign:')
        WHEN 'clawback'        THEN debit_account = 'wallet:' || customer_id AND starts_with(credit_account, 'campaign:')
        WHEN 'clawback_debt'   THEN debit_account = 'debt:' || customer_id AND starts_with(credit_account, 'campaign:')
        WHEN 'debt_settlement' THEN debit_account = 'wallet:' || customer_id AND credit_account = 'debt:' || customer_id
        WHEN 'make_good'       THEN starts_with(debit_account, 'campaign:') AND credit_account = 'wallet:' || customer_id
        WHEN 'expiry'          THEN debit_account = 'wallet:' || customer_id AND credit_account = 'breakage'
        ELSE false
    END IS TRUE)  -- a kind that needs an order and has none is NULL, which CHECK alone would let pass
);
-- One index answers both "this customer's wallet" and "this order": every transfer has a customer.
CREATE INDEX transfers_customer_order ON transfers (customer_id, order_id);

-- What a customer has in one currency. Whoever changes it, its lots or the customer's redemptions locks the row first.
-- The application inserts and locks it; what it holds is written by the trigger on transfers and by nothing else. One row
-- for three accounts and the lock, because a customer's rows are what a large ledger has to fetch for each order.
CREATE TABLE wallets (
    customer_id text   NOT NULL,
    currency    text   NOT NULL,
    balance     bigint NOT NULL DEFAULT 0,  -- account wallet:<customer_id>
    pending     bigint NOT NULL DEFAULT 0,  -- account pending:<customer_id>
    debt        bigint NOT NULL DEFAULT 0,  -- account debt:<customer_id>
    last_lot_no int    NOT NULL DEFAULT 0,
    PRIMARY KEY (customer_id, currency),
    CONSTRAINT never_negative CHECK (balance >= 0 AND pending >= 0 AND debt >= 0),
    CONSTRAINT no_credit_beside_a_debt CHECK (balance = 0 OR debt = 0)
) WITH (fillfactor = 70);

-- What campaigns, orders and breakage hold, positive on the normal side; written like wallets. Campaigns and breakage are
-- spread over slots, summed on read, so that no row is hot. An order has slot 0 alone. A campaign's account is shared by all
-- customers, so its sum has no bound that a sender could reach: one that were full would refuse everybody.
CREATE TABLE balances (
    account  text     NOT NULL,
    currency text     NOT NULL,
    slot     smallint NOT NULL,
    balance  numeric  NOT NULL,  -- whole minor units
    PRIMARY KEY (account, currency, slot),
    CONSTRAINT never_negative CHECK (balance >= 0 OR starts_with(account, 'campaign:'))
) WITH (fillfactor = 70);

CREATE VIEW accounts AS
SELECT account, currency, CASE WHEN starts_with(account, 'campaign:') THEN 'debit' ELSE 'credit' END AS normal_side,
       sum(balance) AS balance
FROM balances GROUP BY account, currency
UNION ALL SELECT 'wallet:' || customer_id, currency, 'credit', balance FROM wallets
UNION ALL SELECT 'pending:' || customer_id, currency, 'credit', pending FROM wallets
UNION ALL SELECT 'debt:' || customer_id, currency, 'debit', debt FROM wallets;

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

-- Where outcomes go, by the brokers' own words for it. A shop that has one broker only deletes the other's row.
CREATE TABLE destinations (destination text PRIMARY KEY CHECK (destination ~ '^[a-z][a-z0-9-]{0,31}$'));
INSERT INTO destinations VALUES ('sns'), ('rabbitmq');

-- The unpublished mark: a row for each destination that has not confirmed yet. Picked with SKIP LOCKED, never by an id
-- cursor: identity values commit out of order, and a cursor would step over the late ones.
CREATE TABLE outbox_unpublished (
    destination text   NOT NULL,
    outbox_id   bigint NOT NULL,
    PRIMARY KEY (destination, outbox_id)
);

-- Where outcomes were to go when they were written: a row a statement, by the trigger. What is due at a destination has an
-- unpublished mark or is part of a publication, and verification compares the three.
CREATE TABLE outbox_due (
    destinations text[]         NOT NULL,
    outbox_ids   int8multirange NOT NULL
);

-- What a broker has confirmed: a row a batch, written with the removal of the marks. Never edited.
CREATE TABLE publications (
    publication_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    destination    text           NOT NULL,
    outcomes       int            NOT NULL CHECK (outcomes > 0),
    outbox_ids     int8multirange NOT NULL CHECK (NOT isempty(outbox_ids)),  -- what was refused lies between its ranges
    published_at   timestamptz    NOT NULL DEFAULT now()
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

-- ── What was verified ────────────────────────────────────────────────────────────────────────────────────────────────
-- Transfers that were found sound, block by block in the order of their numbers, none left out; the last block ends at the
-- point up to which the ledger was verified. A block's digest is of its transfers and of the digest before it, so that what
-- changes below the point is found, and where. Written by seal_block() alone.
CREATE TABLE transfer_blocks (
    block_no     bigint PRIMARY KEY,
    after_id     bigint NOT NULL,  -- its transfers: after_id < transfer_id <= last_id
    last_id      bigint NOT NULL,
    after_outbox bigint NOT NULL,  -- and the outcomes that are looked at with them: after_outbox < outbox_id <= last_outbox
    last_outbox  bigint NOT NULL,
    transfers    bigint NOT NULL,
    sums         jsonb  NOT NULL,  -- what they moved: transfer_sums()
    digest       bytea  NOT NULL CHECK (length(digest) = 32),
    sealed_at    timestamptz NOT NULL DEFAULT now(),
    CHECK (after_id <= last_id AND after_outbox <= last_outbox)
);

-- When the jobs that a schedule runs ran last, and what came of it: a row a job, for whoever watches.
CREATE TABLE job_runs (
    job       text PRIMARY KEY CHECK (job IN ('expire', 'verify', 'verify-full')),
    runs      bigint NOT NULL CHECK (runs > 0),
    began_at  timestamptz NOT NULL,
    seconds   double precision NOT NULL CHECK (seconds >= 0),
    well      boolean NOT NULL,     -- nothing was refused, or found
    well_at   timestamptz,          -- when it began the last time that it went well
    figures   jsonb NOT NULL        -- what it did, by name
);

-- Who serves, by its own word: a row a process, written every few seconds while it runs, and removed when it ends. Rows of
-- those that were killed are removed by whoever writes next, an hour later.
CREATE TABLE serving_processes (
    process_id uuid PRIMARY KEY,
    host       text NOT NULL,
    pid        int  NOT NULL,
    activity   text NOT NULL,  -- as in readyz: fleet, relay, collector
    release    text NOT NULL,
    began_at   timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    figures    jsonb NOT NULL  -- what it does, by name
);

-- When somebody looked at the status last, so that it can say what is new since then; forgotten after 90 days.
CREATE TABLE status_looks (
    looker    text PRIMARY KEY,
    looked_at timestamptz NOT NULL
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
-- TRUNCATE is left to the owner: who mended the ledger by hand begins a new chain with it.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON transfer_blocks
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Balances follow transfers in the same statement, once a statement. Wallets and orders are updated in place: the caller
-- holds the lock that guards them. Slotted accounts have no such guard, so they are taken in sorted order by the INSERT,
-- which also serves what is new; two batches can then never wait for each other in a ring.
--
-- The deltas pass through arrays and the planner is held to index look-ups, because the plan is made when the tables are
-- young and kept: joined as a subquery, a batch was once compared with every account there was. ADR 11 has the reasons,
-- also for `= ANY (ARRAY[key])`.
CREATE FUNCTION post_to_wallets() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    customers  text[];
    currencies text[];
    credit     bigint[];
    awaited    bigint[];
    owed       bigint[];
    lot_nos    int[];
    updated    int;
BEGIN
    SELECT array_agg(side.customer_id), array_agg(side.currency), array_agg(side.balance), array_agg(side.pending),
           array_agg(side.debt), array_agg(side.lot_no)
    INTO customers, currencies, credit, awaited, owed, lot_nos
    FROM (
        SELECT customer_id, currency,
               sum(CASE WHEN starts_with(credit_account, 'wallet:') THEN amount
                        WHEN starts_with(debit_account, 'wallet:') THEN -amount ELSE 0 END) AS balance,
               sum(CASE WHEN starts_with(credit_account, 'pending:') THEN amount
                        WHEN starts_with(debit_account, 'pending:') THEN -amount ELSE 0 END) AS pending,
               sum(CASE WHEN starts_with(debit_account, 'debt:') THEN amount
                        WHEN starts_with(credit_account, 'debt:') THEN -amount ELSE 0 END) AS debt,
               coalesce(max(lot_no), 0) AS lot_no
        FROM posted WHERE kind NOT IN ('coupon', 'coupon_reversal')
        GROUP BY customer_id, currency ORDER BY customer_id, currency
    ) AS side;

    UPDATE wallets SET balance = wallets.balance + change.balance, pending = wallets.pending + change.pending,
        debt = wallets.debt + change.debt, last_lot_no = greatest(wallets.last_lot_no, change.lot_no)
    FROM unnest(customers, currencies, credit, awaited, owed, lot_nos)
        AS change (customer_id, currency, balance, pending, debt, lot_no)
    WHERE wallets.customer_id = ANY (ARRAY[change.customer_id]) AND wallets.currency = change.currency;

    GET DIAGNOSTICS updated = ROW_COUNT;
    IF updated < cardinality(customers) THEN  -- some have no wallet yet
        INSERT INTO wallets (customer_id, currency, balance, pending, debt, last_lot_no)
        SELECT change.* FROM unnest(customers, currencies, credit, awaited, owed, lot_nos)
            AS change (customer_id, currency, balance, pending, debt, lot_no)
        WHERE NOT EXISTS (
            SELECT FROM wallets WHERE wallets.customer_id = change.customer_id AND wallets.currency = change.currency
        );
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER post_to_wallets AFTER INSERT ON transfers REFERENCING NEW TABLE AS posted
    FOR EACH STATEMENT EXECUTE FUNCTION post_to_wallets();

CREATE FUNCTION post_to_balances() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    my_slot CONSTANT smallint := 1 + pg_backend_pid() % 16;
    accounts   text[];
    currencies text[];
    slots      smallint[];
    deltas     numeric[];
    reversal   record;
BEGIN
    SELECT array_agg(side.account), array_agg(side.currency), array_agg(side.slot), array_agg(side.delta)
    INTO accounts, currencies, slots, deltas
    FROM (
        SELECT each.account, each.currency, CASE WHEN starts_with(each.account, 'order:') THEN 0 ELSE my_slot END AS slot,
               sum(each.delta) AS delta
        FROM (
            SELECT debit_account AS account, currency,
                   CASE WHEN starts_with(debit_account, 'campaign:') THEN amount ELSE -amount END AS delta
            FROM posted WHERE starts_with(debit_account, 'campaign:') OR starts_with(debit_account, 'order:')
            UNION ALL
            SELECT credit_account, currency,
                   CASE WHEN starts_with(credit_account, 'campaign:') THEN -amount ELSE amount END
            FROM posted WHERE starts_with(credit_account, 'campaign:') OR starts_with(credit_account, 'order:')
                           OR credit_account = 'breakage'
        ) AS each
        GROUP BY each.account, each.currency ORDER BY each.account, each.currency
    ) AS side;

    -- Few, and one by one: as a row to insert, what is taken off an order would be refused as below zero.
    FOR reversal IN
        SELECT change.* FROM unnest(accounts, currencies, deltas, slots) AS change (account, currency, delta, slot)
        WHERE change.slot = 0 AND change.delta < 0
    LOOP
        UPDATE balances SET balance = balance + reversal.delta
        WHERE account = reversal.account AND currency = reversal.currency AND slot = 0;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'never_negative: % is taken off %, on which nothing stands', -reversal.delta, reversal.account
                USING ERRCODE = 'check_violation', CONSTRAINT = 'never_negative', TABLE = 'balances';
        END IF;
    END LOOP;

    INSERT INTO balances (account, currency, slot, balance)
    SELECT change.account, change.currency, change.slot, change.delta
    FROM unnest(accounts, currencies, deltas, slots) AS change (account, currency, delta, slot)
    WHERE change.slot <> 0 OR change.delta >= 0
    ON CONFLICT (account, currency, slot) DO UPDATE SET balance = balances.balance + excluded.balance;
    RETURN NULL;
END $$;
CREATE TRIGGER post_to_balances AFTER INSERT ON transfers REFERENCING NEW TABLE AS posted
    FOR EACH STATEMENT EXECUTE FUNCTION post_to_balances();

CREATE FUNCTION refuse_other_owner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a wallet keeps its customer and its currency' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER keeps_its_owner BEFORE UPDATE OF customer_id, currency ON wallets
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_other_owner();

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
    INSERT INTO outbox_due (destinations, outbox_ids)
    SELECT due.destinations, range_agg(int8range(outbox_id, outbox_id, '[]'))
    FROM added CROSS JOIN (SELECT array_agg(destination) AS destinations FROM destinations HAVING count(*) > 0) AS due
    GROUP BY due.destinations;
    RETURN NULL;
END $$;
CREATE TRIGGER mark AFTER INSERT ON outbox REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION mark_unpublished();

-- A resolution is kept as it was given, whatever becomes of the anomaly.
CREATE FUNCTION keep_resolution() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO anomaly_resolutions (order_id, reason, subject, noticed_at, resolved_at, resolved_by, resolution)
    VALUES (NEW.order_id, NEW.reason, NEW.subject, NEW.noticed_at, NEW.resolved_at, NEW.resolved_by, NEW.resolution);
    RETURN NULL;
END $$;
CREATE TRIGGER keep_resolution AFTER UPDATE OF resolved_at ON anomalies FOR EACH ROW
    WHEN (NEW.resolved_at IS NOT NULL) EXECUTE FUNCTION keep_resolution();

-- What a run of transfers moved, by account and currency, positive on the account's normal side. Accounts of customers and
-- orders are summed, for they have no number: 'wallet|EUR' beside 'campaign:spring|EUR'.
CREATE FUNCTION transfer_sums(after bigint, upto bigint) RETURNS jsonb LANGUAGE sql STABLE
    SET search_path = public, pg_temp SET enable_seqscan = off
AS $$
    SELECT coalesce(jsonb_object_agg(account || '|' || currency, moved), '{}') FROM (
        SELECT account, currency, sum(CASE WHEN account = 'debt' OR starts_with(account, 'campaign:') THEN debited
                                           ELSE -debited END) AS moved
        FROM transfers, LATERAL (VALUES (debit_account, amount::numeric), (credit_account, -amount::numeric)) AS side (whole, debited),
             LATERAL (SELECT CASE WHEN starts_with(whole, 'campaign:') THEN whole ELSE split_part(whole, ':', 1) END) AS of (account)
        WHERE transfer_id > after AND transfer_id <= upto
        GROUP BY account, currency
    ) AS by_account
$$;

-- The digest of a block: SHA-256 of the digest before it, and of its transfers as JSON arrays, a line each, in UTF-8.
CREATE FUNCTION transfers_digest(previous bytea, after bigint, upto bigint) RETURNS bytea LANGUAGE sql STABLE
    SET search_path = public, pg_temp SET enable_seqscan = off SET timezone = 'UTC'
AS $$
    SELECT sha256(previous || convert_to(coalesce(string_agg(line, chr(10)), ''), 'UTF8')) FROM (
        SELECT json_build_array(transfer_id, kind, debit_account, credit_account, currency, amount, customer_id, order_id, lot_no,
                                cause, happened_at, booked_at)::text AS line
        FROM transfers WHERE transfer_id > after AND transfer_id <= upto ORDER BY transfer_id
    ) AS lines
$$;

-- Seals the block behind the last one: up to `rows_max` transfers, none beyond `upto`. NULL when nothing is left. Whoever
-- calls it knows that no open transaction holds a number up to `upto` or `outbox_upto`; it moves no point back.
CREATE FUNCTION seal_block(upto bigint, outbox_upto bigint, rows_max int) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    before transfer_blocks;
    after  bigint;
    ends   bigint;
    held   bigint;
    outbox_after bigint;
    outbox_ends  bigint;
BEGIN
    IF rows_max NOT BETWEEN 1 AND 1000000 THEN
        RAISE EXCEPTION 'rows_max is %: must be 1 to 1000000', rows_max USING ERRCODE = 'invalid_parameter_value';
    END IF;
    LOCK TABLE transfer_blocks IN EXCLUSIVE MODE;  -- two runs at once seal one after the other
    SELECT * INTO before FROM transfer_blocks ORDER BY block_no DESC LIMIT 1;
    after := coalesce(before.last_id, 0);
    outbox_after := coalesce(before.last_outbox, 0);
    SELECT max(transfer_id), count(*) INTO ends, held FROM (
        SELECT transfer_id FROM transfers WHERE transfer_id > after AND transfer_id <= upto
        ORDER BY transfer_id LIMIT rows_max
    ) AS next;
    IF ends IS NULL AND outbox_after >= outbox_upto THEN
        RETURN NULL;
    END IF;
    ends := coalesce(ends, after);
    -- Outcomes are dealt out over the blocks as their transfers are; the last block takes the rest.
    outbox_ends := CASE WHEN ends >= upto OR held < rows_max THEN greatest(outbox_upto, outbox_after)
        ELSE outbox_after + div(greatest(outbox_upto - outbox_after, 0)::numeric * (ends - after), upto - after) END;
    INSERT INTO transfer_blocks (block_no, after_id, last_id, after_outbox, last_outbox, transfers, sums, digest)
    VALUES (coalesce(before.block_no, 0) + 1, after, ends, outbox_after, outbox_ends, held, transfer_sums(after, ends),
            transfers_digest(coalesce(before.digest, ''), after, ends));
    RETURN coalesce(before.block_no, 0) + 1;
END $$;

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
GRANT INSERT ON campaign_versions, campaigns, orders, waiting, decisions, anomalies, lots, redemptions, grants, attempts
    TO incentives_app;
-- Column by column: when something was booked, recorded or numbered is the database's to say.
GRANT INSERT (kind, debit_account, credit_account, currency, amount, customer_id, order_id, lot_no, cause, happened_at)
    ON transfers TO incentives_app;
GRANT INSERT (order_id, fact, source, event_id, digest, traceparent, happened_at, data) ON facts TO incentives_app;
GRANT INSERT (order_id, fact, sequence, type, body) ON outbox TO incentives_app;
GRANT INSERT (customer_id, currency) ON wallets TO incentives_app;
GRANT UPDATE (customer_id) ON wallets TO incentives_app;  -- a row lock needs the privilege; keeps_its_owner refuses its use
GRANT UPDATE ON attempts TO incentives_app;
GRANT UPDATE (kind, currency, code, version) ON campaigns TO incentives_app;
GRANT UPDATE (revision) ON campaign_revision TO incentives_app;
GRANT UPDATE (totals) ON orders TO incentives_app;
GRANT UPDATE (remaining, expired) ON lots TO incentives_app;
GRANT UPDATE (released_at) ON redemptions TO incentives_app;
GRANT UPDATE (claimed, noticed_at, resolved_at, resolved_by, resolution) ON anomalies TO incentives_app;
GRANT INSERT (destination, outcomes, outbox_ids) ON publications TO incentives_app;
GRANT UPDATE (reversed_at, reversal_reason, reversed_minor) ON grants TO incentives_app;
GRANT UPDATE (destination) ON outbox_unpublished TO incentives_app;  -- SKIP LOCKED takes a row lock
GRANT DELETE ON waiting, outbox_unpublished, attempts TO incentives_app;
GRANT INSERT, UPDATE ON job_runs TO incentives_app;
GRANT INSERT, UPDATE, DELETE ON serving_processes, status_looks TO incentives_app;
-- The point moves by this function and no other way: who may call it chooses no digest, changes none and removes none.
REVOKE ALL ON FUNCTION seal_block(bigint, bigint, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION seal_block(bigint, bigint, int) TO incentives_app;
