-- What a part of the ledger is: the same names as the tables of checks.sql, and in them what belongs to the orders, or to the
-- customers, of a stretch of transfers and outcomes. nightly.py puts one of these before a check, with numbers for the braces.

-- part: orders
WITH named AS MATERIALIZED (  -- DISTINCT tells the planner that each is there once, as UNION does not
    SELECT DISTINCT order_id FROM (
        SELECT order_id FROM public.transfers WHERE transfer_id > {after} AND transfer_id <= {last} AND order_id IS NOT NULL
        UNION ALL SELECT order_id FROM public.outbox
        WHERE outbox_id > {after_outbox} AND outbox_id <= {last_outbox} AND order_id <> ''
        UNION ALL SELECT order_id FROM public.waiting WHERE {waiting}
    ) AS met
), decisions AS (
    SELECT decided.* FROM named JOIN public.decisions AS decided USING (order_id)
), final_baskets AS (
    SELECT final.* FROM named JOIN public.final_baskets AS final USING (order_id)
), baskets AS (
    SELECT basket.* FROM named JOIN public.baskets AS basket USING (order_id)
), codes AS (
    SELECT used.* FROM named JOIN public.codes AS used USING (order_id)
), pairs AS MATERIALIZED (
    SELECT customer_id, order_id FROM decisions
    UNION SELECT customer_id, order_id FROM public.transfers
    WHERE transfer_id > {after} AND transfer_id <= {last} AND order_id IS NOT NULL
), transfers AS (
    SELECT moved.* FROM pairs JOIN public.transfers AS moved USING (customer_id, order_id)
    UNION ALL SELECT * FROM public.transfers WHERE transfer_id > {after} AND transfer_id <= {last} AND order_id IS NULL
), orders AS (
    SELECT known.* FROM named JOIN public.orders AS known USING (order_id)
), facts AS (
    SELECT known.* FROM named JOIN public.facts AS known USING (order_id)
    UNION ALL SELECT known.* FROM (  -- grants by event, which are of no order
        SELECT DISTINCT cause AS fact FROM public.transfers
        WHERE transfer_id > {after} AND transfer_id <= {last} AND order_id IS NULL
    ) AS of JOIN public.facts AS known USING (fact) WHERE known.order_id = ''
), outbox AS (
    SELECT outbox_id, order_id, fact, sequence  -- not the bodies, which no check reads
    FROM named JOIN public.outbox USING (order_id)
    UNION ALL SELECT outbox_id, order_id, fact, sequence FROM public.outbox  -- notices, which are of no order
    WHERE order_id = '' AND outbox_id > {after_outbox} AND outbox_id <= {last_outbox}
), waiting AS (
    SELECT early.* FROM named JOIN public.waiting AS early USING (order_id)
), anomalies AS (
    SELECT odd.* FROM named JOIN public.anomalies AS odd USING (order_id)
), redemptions AS (
    SELECT used.* FROM named JOIN public.redemptions AS used USING (order_id) JOIN pairs USING (customer_id, order_id)
), accounts AS (
    SELECT account, currency, 'credit' AS normal_side, sum(balance) AS balance
    FROM named, LATERAL (  -- looked up one by one (OFFSET keeps it so): else all of them are read, which are as many as orders
        SELECT * FROM public.balances WHERE account = 'order:' || order_id OFFSET 0
    ) AS standing GROUP BY account, currency
), grants AS (
    SELECT given.* FROM (
        SELECT DISTINCT substr(cause, CASE WHEN starts_with(cause, 'grant:') THEN 7 ELSE 16 END) AS key
        FROM public.transfers WHERE transfer_id > {after} AND transfer_id <= {last} AND order_id IS NULL
    ) AS of JOIN public.grants AS given USING (key)
), outbox_due AS (
    SELECT destinations, outbox_ids * '{{({after_outbox},{last_outbox}]}}'::int8multirange AS outbox_ids
    FROM public.outbox_due WHERE outbox_ids && '({after_outbox},{last_outbox}]'::int8range
), publications AS (
    SELECT * FROM public.publications WHERE outbox_ids && '({after_outbox},{last_outbox}]'::int8range
)

-- part: customers
WITH named AS MATERIALIZED (
    SELECT DISTINCT customer_id FROM public.transfers WHERE transfer_id > {after} AND transfer_id <= {last}
), transfers AS (
    SELECT moved.* FROM named JOIN public.transfers AS moved USING (customer_id)
), wallets AS (
    SELECT held.* FROM named JOIN public.wallets AS held USING (customer_id)
), lots AS (
    SELECT held.* FROM named JOIN public.lots AS held USING (customer_id)
), grants AS (
    SELECT given.* FROM named JOIN public.grants AS given USING (customer_id)
), accounts AS (
    SELECT 'wallet:' || customer_id AS account, currency, 'credit' AS normal_side, balance::numeric FROM wallets
    UNION ALL SELECT 'pending:' || customer_id, currency, 'credit', pending FROM wallets
    UNION ALL SELECT 'debt:' || customer_id, currency, 'debit', debt FROM wallets
)

-- part: sums
WITH booked AS (
    SELECT key, sum(value::numeric) AS balance FROM (
        SELECT key, value FROM transfer_blocks, jsonb_each_text(sums)
        UNION ALL SELECT key, value FROM jsonb_each_text(transfer_sums({after}, {last}))
    ) AS moved GROUP BY key
), held AS (
    SELECT account || '|' || currency AS key, sum(balance) AS balance FROM (
        SELECT CASE WHEN starts_with(account, 'order:') THEN 'order' ELSE account END AS account, currency, balance FROM balances
        UNION ALL SELECT 'wallet', currency, balance FROM wallets
        UNION ALL SELECT 'pending', currency, pending FROM wallets
        UNION ALL SELECT 'debt', currency, debt FROM wallets
    ) AS of GROUP BY account, currency
)
SELECT left(key, -4) AS account, right(key, 3) AS currency, coalesce(booked.balance, 0) AS by_transfers,
       coalesce(held.balance, 0) AS by_balances
FROM booked FULL JOIN held USING (key) WHERE coalesce(booked.balance, 0) <> coalesce(held.balance, 0)
