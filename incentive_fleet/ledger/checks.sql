-- What must be true of the ledger. Each statement lists what is not; a sound ledger gives no row.
-- verify.py runs them in one snapshot. Anybody may run one alone in psql: nothing here writes.
--
-- A check with a line "in part" is run by a nightly run (nightly.py) over what is new and over a thirtieth of the rest: over
-- orders or customers with all that is theirs. The others read what is little, or current, and are run as they stand.

-- check: balances
-- Every account's balance, its slots summed, is what its transfers add up to.
-- in part: customers, orders
SELECT account, currency, coalesce(moved.balance, 0) AS by_transfers, coalesce(held.balance, 0) AS by_balances
FROM (
    SELECT account, currency,
           sum(CASE WHEN starts_with(account, 'campaign:') OR starts_with(account, 'debt:')
                    THEN debited ELSE -debited END) AS balance
    FROM (SELECT debit_account AS account, currency, amount AS debited FROM transfers
          UNION ALL SELECT credit_account, currency, -amount FROM transfers) AS side
    GROUP BY account, currency
) AS moved
FULL JOIN accounts AS held USING (account, currency)
WHERE coalesce(moved.balance, 0) <> coalesce(held.balance, 0);

-- check: debits-and-credits
-- In each currency the debit-normal balances sum to the credit-normal ones.
SELECT currency, coalesce(sum(balance) FILTER (WHERE normal_side = 'debit'), 0) AS debit,
       coalesce(sum(balance) FILTER (WHERE normal_side = 'credit'), 0) AS credit
FROM accounts GROUP BY currency
HAVING sum(CASE normal_side WHEN 'debit' THEN balance ELSE -balance END) <> 0;

-- check: never-negative
-- No account but a campaign's is below zero.
SELECT account, currency, balance FROM accounts WHERE balance < 0 AND NOT starts_with(account, 'campaign:');

-- check: no-wallet-beside-a-debt
-- A customer who owes credit holds none: what arrives settles the debt first.
SELECT customer_id, currency, debt, balance AS wallet FROM wallets WHERE debt <> 0 AND balance <> 0;

-- check: wallets-and-lots
-- A wallet's balance is what its lots have left, and its last lot is the newest there is.
SELECT customer_id, currency, coalesce(balance, 0) AS wallet, coalesce(parcels.remaining, 0) AS lots,
       coalesce(last_lot_no, 0) AS last_lot_no, coalesce(parcels.newest, 0) AS newest_lot
FROM wallets
FULL JOIN (
    SELECT customer_id, currency, sum(remaining) AS remaining, max(lot_no) AS newest FROM lots GROUP BY customer_id, currency
) AS parcels USING (customer_id, currency)
WHERE coalesce(balance, 0) <> coalesce(parcels.remaining, 0) OR coalesce(last_lot_no, 0) <> coalesce(parcels.newest, 0);

-- check: lots
-- What a lot has left is what came into it less what went out, and nothing moves in a wallet without a lot.
-- in part: customers
SELECT customer_id, currency, lot_no, moved.left_over AS by_transfers, lots.remaining AS by_lot
FROM (
    SELECT customer_id, currency, lot_no,
           sum(CASE WHEN starts_with(credit_account, 'wallet:') THEN amount ELSE -amount END) AS left_over
    FROM transfers WHERE starts_with(credit_account, 'wallet:') OR starts_with(debit_account, 'wallet:')
    GROUP BY customer_id, currency, lot_no
) AS moved
FULL JOIN lots USING (customer_id, currency, lot_no)
WHERE moved.left_over IS DISTINCT FROM lots.remaining;

-- check: lot-openings
-- A lot began with the amount and the cause of the first transfer that came into it.
-- in part: customers
SELECT lots.customer_id, lots.currency, lots.lot_no, lots.amount, lots.cause,
       first.amount AS arrived, first.cause AS arrived_by
FROM lots LEFT JOIN (
    SELECT DISTINCT ON (customer_id, currency, lot_no) customer_id, currency, lot_no, amount, cause
    FROM transfers WHERE starts_with(credit_account, 'wallet:')
    ORDER BY customer_id, currency, lot_no, transfer_id
) AS first USING (customer_id, currency, lot_no)
WHERE lots.amount IS DISTINCT FROM first.amount OR lots.cause IS DISTINCT FROM first.cause;

-- check: lot-expiries
-- What a first lot says has expired, its reissues included, is what went from them to breakage.
-- in part: customers
SELECT lots.customer_id, lots.currency, lots.lot_no, lots.expired AS by_lot, coalesce(swept.amount, 0) AS by_transfers
FROM lots LEFT JOIN (
    SELECT lot.customer_id, lot.currency, lot.root_lot_no AS lot_no, sum(moved.amount) AS amount
    FROM transfers AS moved JOIN lots AS lot USING (customer_id, currency, lot_no)
    WHERE moved.kind = 'expiry' GROUP BY lot.customer_id, lot.currency, lot.root_lot_no
) AS swept USING (customer_id, currency, lot_no)
WHERE lots.expired <> coalesce(swept.amount, 0);

-- check: lot-reissues
-- A reissued lot comes after the lot it stands in for, of the same campaign and the same chain; others begin a chain.
-- in part: customers
SELECT lot.customer_id, lot.currency, lot.lot_no, lot.root_lot_no, lot.reissued_from
FROM lots AS lot LEFT JOIN lots AS earlier
    ON earlier.customer_id = lot.customer_id AND earlier.currency = lot.currency AND earlier.lot_no = lot.reissued_from
WHERE CASE WHEN lot.reissued_from IS NULL THEN lot.root_lot_no <> lot.lot_no
           ELSE (earlier.root_lot_no, earlier.campaign_id) IS DISTINCT FROM (lot.root_lot_no, lot.campaign_id)
                OR earlier.lot_no >= lot.lot_no END;

-- check: account-owners
-- A transfer touches the accounts of its own customer and its own order only.
-- in part: customers
SELECT transfer_id, kind, debit_account, credit_account, customer_id, order_id FROM transfers
WHERE NOT (starts_with(debit_account, 'campaign:') OR debit_account = 'order:' || coalesce(order_id, '')
           OR debit_account IN ('wallet:' || customer_id, 'pending:' || customer_id, 'debt:' || customer_id))
   OR NOT (starts_with(credit_account, 'campaign:') OR credit_account = 'order:' || coalesce(order_id, '')
           OR credit_account IN ('wallet:' || customer_id, 'pending:' || customer_id, 'debt:' || customer_id, 'breakage'));

-- check: campaign-currencies
-- Every campaign that was ever charged is known, and charged in its own currency only.
SELECT charged.account, charged.currency, campaigns.currency AS campaign_currency
FROM accounts AS charged LEFT JOIN campaigns ON campaigns.campaign_id = substr(charged.account, 10)
WHERE starts_with(charged.account, 'campaign:') AND campaigns.currency IS DISTINCT FROM charged.currency;

-- check: causes
-- Every transfer was caused by a stored fact of its order at that fact's time, by a recorded grant, or by an expiry run.
-- in part: orders
SELECT moved.transfer_id, moved.kind, moved.order_id, moved.cause
FROM transfers AS moved
LEFT JOIN facts ON facts.order_id = moved.order_id AND facts.fact = moved.cause AND facts.happened_at = moved.happened_at
LEFT JOIN grants ON moved.order_id IS NULL AND grants.key =
    CASE WHEN starts_with(moved.cause, 'grant:') THEN substr(moved.cause, 7)
         WHEN starts_with(moved.cause, 'grant-reversal:') THEN substr(moved.cause, 16) END
WHERE facts.order_id IS NULL AND grants.key IS NULL AND NOT (moved.kind = 'expiry' AND moved.cause = 'expiry');

-- check: grants
-- Every grant is one transfer of its amount from its campaign into its lot, and what was taken back is what it says.
-- in part: customers
SELECT key, granted.amount, booked.amount AS booked, granted.reversed_minor, taken.amount AS booked_reversed
FROM grants AS granted
FULL JOIN (
    SELECT substr(cause, 7) AS key, customer_id, currency, amount, substr(debit_account, 10) AS campaign_id, lot_no
    FROM transfers WHERE kind = 'grant'
) AS booked USING (key)
LEFT JOIN (
    SELECT substr(cause, 16) AS key, sum(amount) AS amount FROM transfers WHERE kind = 'grant_reversal' GROUP BY cause
) AS taken USING (key)
WHERE (granted.customer_id, granted.currency, granted.amount, granted.campaign_id, granted.lot_no)
      IS DISTINCT FROM (booked.customer_id, booked.currency, booked.amount, booked.campaign_id, booked.lot_no)
   OR coalesce(granted.reversed_minor, 0) <> coalesce(taken.amount, 0);

-- check: order-accounts
-- What stands on an order is what its decision applied less what was reversed.
-- in part: orders
SELECT order_id, coalesce(decided.applied, 0) AS applied, coalesce(undone.reversed, 0) AS reversed,
       coalesce(standing.balance, 0) AS by_balance
FROM (
    SELECT order_id,
           coalesce((SELECT sum((coupon ->> 'discount')::bigint) FROM json_array_elements(booked -> 'coupons') AS coupon), 0)
           + coalesce((booked -> 'credit' ->> 'applied')::bigint, 0) AS applied
    FROM baskets
) AS decided
FULL JOIN (
    SELECT substr(account, 7) AS order_id, sum(balance) AS balance
    FROM accounts WHERE starts_with(account, 'order:') GROUP BY account
) AS standing USING (order_id)
FULL JOIN (
    SELECT substr(debit_account, 7) AS order_id, sum(amount) AS reversed
    FROM transfers WHERE kind IN ('coupon_reversal', 'credit_return') AND cause <> 'final-basket' GROUP BY debit_account
) AS undone USING (order_id)
WHERE coalesce(decided.applied, 0) - coalesce(undone.reversed, 0) <> coalesce(standing.balance, 0);

-- check: decisions-booked
-- Each coupon, each burned lot and each earning of a placing is one transfer of that amount, and it has no others.
-- in part: orders
SELECT order_id, kind, of, decided.amount AS decided, booked.amount AS booked
FROM (
    SELECT order_id, 'coupon' AS kind, 'campaign:' || (coupon ->> 'campaign_id') AS of, (coupon ->> 'discount')::bigint AS amount
    FROM decisions, json_array_elements(decision -> 'coupons') AS coupon
    UNION ALL
    SELECT order_id, 'credit', 'lot ' || (burned ->> 'lot_no'), (burned ->> 'amount')::bigint
    FROM decisions, json_array_elements(decision -> 'credit' -> 'burned') AS burned
    UNION ALL
    SELECT order_id, 'earn', 'campaign:' || (earned ->> 'campaign_id'), (earned ->> 'amount')::bigint
    FROM decisions, json_array_elements(decision -> 'earned') AS earned
) AS decided
FULL JOIN (
    SELECT order_id, kind, CASE kind WHEN 'credit' THEN 'lot ' || lot_no ELSE debit_account END AS of, amount
    FROM transfers WHERE kind IN ('coupon', 'credit', 'earn') AND cause = 'placing'
) AS booked USING (order_id, kind, of)
WHERE decided.amount IS DISTINCT FROM booked.amount;

-- check: final-baskets-booked
-- A final basket moves each coupon, the credit and each earning by the difference to its placing, and nothing else.
-- in part: orders
SELECT order_id, of, coalesce(decided.amount, 0) AS decided, coalesce(moved.amount, 0) AS booked
FROM (
    SELECT order_id, of, sum(amount) AS amount
    FROM (SELECT order_id, placed, counts FROM baskets WHERE finalized AND NOT all_reversed) AS finalized, LATERAL (
        SELECT 'campaign:' || (one ->> 'campaign_id') AS of, (one ->> 'discount')::bigint AS amount
        FROM json_array_elements(counts -> 'coupons') AS one
        UNION ALL SELECT 'campaign:' || (one ->> 'campaign_id'), -(one ->> 'discount')::bigint
        FROM json_array_elements(placed -> 'coupons') AS one
        UNION ALL SELECT 'campaign:' || (one ->> 'campaign_id'), (one ->> 'amount')::bigint
        FROM json_array_elements(counts -> 'earned') AS one
        UNION ALL SELECT 'campaign:' || (one ->> 'campaign_id'), -(one ->> 'amount')::bigint
        FROM json_array_elements(placed -> 'earned') AS one
        UNION ALL SELECT 'credit', coalesce((counts -> 'credit' ->> 'applied')::bigint, 0)
                                   - coalesce((placed -> 'credit' ->> 'applied')::bigint, 0)
    ) AS part GROUP BY order_id, of
) AS decided
FULL JOIN (
    SELECT order_id,
           CASE WHEN kind = 'credit_return' THEN 'credit' WHEN kind IN ('coupon', 'earn') THEN debit_account
                ELSE credit_account END AS of,
           sum(CASE WHEN kind IN ('coupon', 'earn') THEN amount ELSE -amount END) AS amount
    FROM transfers WHERE cause = 'final-basket' AND kind <> 'debt_settlement' GROUP BY 1, 2
) AS moved USING (order_id, of)
WHERE coalesce(decided.amount, 0) <> coalesce(moved.amount, 0);

-- check: decisions-add-up
-- The shares of a coupon, of credit or of an earning over the order's lines sum to its whole.
-- in part: orders
SELECT order_id, part.of, part.amount, part.shared
FROM (
    SELECT order_id, decision FROM decisions UNION ALL SELECT order_id, decision FROM final_baskets
) AS decided, LATERAL (
    SELECT 'coupon ' || coalesce(coupon ->> 'code', coupon ->> 'campaign_id') AS of, (coupon ->> 'discount')::bigint AS amount,
           coalesce((SELECT sum(share::bigint) FROM json_array_elements_text(coupon -> 'shares') AS share), 0) AS shared
    FROM json_array_elements(decision -> 'coupons') AS coupon
    UNION ALL
    SELECT 'credit', (decision -> 'credit' ->> 'applied')::bigint,
           coalesce((SELECT sum(share::bigint) FROM json_array_elements_text(decision -> 'credit' -> 'shares') AS share), 0)
    WHERE decision -> 'credit' IS NOT NULL
    UNION ALL
    SELECT 'earned ' || (earned ->> 'campaign_id'), (earned ->> 'amount')::bigint,
           coalesce((SELECT sum(share::bigint) FROM json_array_elements_text(earned -> 'shares') AS share), 0)
    FROM json_array_elements(decision -> 'earned') AS earned
) AS part
WHERE part.amount IS DISTINCT FROM part.shared;

-- check: reversals
-- What was reversed, cancelled, vested and clawed back of each incentive is what the order's running totals ask for.
-- in part: orders
WITH progressed AS (
    SELECT order_id, booked AS decision, all_reversed, totals FROM orders JOIN baskets USING (order_id) WHERE totals IS NOT NULL
), undone AS (  -- most orders are delivered and keep everything: their totals name no line, and nothing is to be worked out
    SELECT order_id, decision, all_reversed, totals FROM progressed
    WHERE coalesce(totals -> 'undelivered', totals -> 'refunded_undelivered', totals -> 'returned',
                   totals -> 'fully_refunded', totals -> 'cancelled') IS NOT NULL
), lines AS (
    SELECT order_id, line.no, line.gross::numeric AS gross,
           CASE WHEN coalesce(totals -> 'fully_refunded', totals -> 'cancelled') IS NOT NULL THEN line.gross::numeric
                ELSE least(line.gross::numeric, greatest(coalesce(line.undelivered::numeric, 0),
                           coalesce(line.refunded::numeric, 0)) + coalesce(line.returned::numeric, 0))
           END AS gone
    FROM undone, LATERAL ROWS FROM (
        json_array_elements_text(decision -> 'gross'), json_array_elements_text(totals -> 'undelivered'),
        json_array_elements_text(totals -> 'refunded_undelivered'), json_array_elements_text(totals -> 'returned')
    ) WITH ORDINALITY AS line (gross, undelivered, refunded, returned, no)
), shares AS (
    SELECT order_id, 'coupon_reversal' AS kind, 'campaign:' || (coupon ->> 'campaign_id') AS of, share.no, share.amount::bigint AS amount
    FROM undone, json_array_elements(decision -> 'coupons') AS coupon,
         json_array_elements_text(coupon -> 'shares') WITH ORDINALITY AS share (amount, no)
    UNION ALL
    SELECT order_id, 'credit_return', '', share.no, share.amount::bigint
    FROM undone, json_array_elements_text(decision -> 'credit' -> 'shares') WITH ORDINALITY AS share (amount, no)
    UNION ALL
    SELECT order_id, 'earn_cancel', 'campaign:' || (earned ->> 'campaign_id'), share.no, share.amount::bigint
    FROM undone, json_array_elements(decision -> 'earned') AS earned,
         json_array_elements_text(earned -> 'shares') WITH ORDINALITY AS share (amount, no)
    WHERE totals ->> 'delivered_at' IS NULL OR all_reversed  -- once delivered, the totals themselves say how much was cancelled
), asked AS (
    SELECT order_id, kind, of,
           sum(CASE WHEN gone = gross THEN amount ELSE div(2 * amount::numeric * gone + gross, 2 * gross) END) AS amount
    FROM shares JOIN lines USING (order_id, no) WHERE gone > 0 AND amount > 0 GROUP BY order_id, kind, of
    UNION ALL
    SELECT order_id, 'earn_cancel', 'campaign:' || (vested ->> 'campaign_id'), (vested ->> 'reversed_before')::numeric
    FROM progressed, json_array_elements(totals -> 'vested') AS vested WHERE NOT all_reversed
    UNION ALL
    SELECT order_id, 'clawback', 'campaign:' || (vested ->> 'campaign_id'), (vested ->> 'clawed_back')::numeric
    FROM progressed, json_array_elements(totals -> 'vested') AS vested
    UNION ALL
    SELECT order_id, 'vest', 'lot ' || (vested ->> 'lot_no'), (earned ->> 'amount')::numeric - (vested ->> 'reversed_before')::numeric
    FROM progressed, json_array_elements(totals -> 'vested') AS vested, json_array_elements(decision -> 'earned') AS earned
    WHERE vested ->> 'campaign_id' = earned ->> 'campaign_id' AND (vested ->> 'lot_no')::int <> 0
), booked AS (
    SELECT order_id, replace(kind, 'clawback_debt', 'clawback') AS kind,
           CASE kind WHEN 'credit_return' THEN '' WHEN 'vest' THEN 'lot ' || lot_no ELSE credit_account END AS of,
           sum(amount) AS amount
    FROM transfers
    WHERE kind IN ('coupon_reversal', 'credit_return', 'earn_cancel', 'clawback', 'clawback_debt', 'vest')
      AND cause <> 'final-basket'
    GROUP BY 1, 2, 3
)
SELECT order_id, kind, of, coalesce(asked.amount, 0) AS asked, coalesce(booked.amount, 0) AS booked
FROM asked FULL JOIN booked USING (order_id, kind, of)
WHERE coalesce(asked.amount, 0) <> coalesce(booked.amount, 0);

-- check: redemption-counts
-- The count that a total limit is held against is the number of live redemptions.
SELECT campaign_id, coalesce(counted.live, 0) AS by_count, coalesce(found.live, 0) AS by_redemptions
FROM (SELECT campaign_id, sum(live) AS live FROM redemption_counts GROUP BY campaign_id) AS counted
FULL JOIN (
    SELECT campaign_id, count(*) AS live FROM redemptions WHERE released_at IS NULL GROUP BY campaign_id
) AS found USING (campaign_id)
WHERE coalesce(counted.live, 0) <> coalesce(found.live, 0);

-- check: redemptions
-- A redemption is a placing's coupon, and is released exactly when all of its discount was taken back.
-- in part: orders
SELECT campaign_id, customer_id, order_id, used.discount, booked.placed, booked.applied, booked.reversed,
       used.released_at IS NOT NULL AS released
FROM redemptions AS used
FULL JOIN (
    SELECT substr(CASE kind WHEN 'coupon' THEN debit_account ELSE credit_account END, 10) AS campaign_id,
           customer_id, order_id, sum(amount) FILTER (WHERE kind = 'coupon') AS applied,
           sum(amount) FILTER (WHERE kind = 'coupon' AND cause = 'placing') AS placed,
           coalesce(sum(amount) FILTER (WHERE kind = 'coupon_reversal'), 0) AS reversed
    FROM transfers WHERE kind IN ('coupon', 'coupon_reversal') GROUP BY 1, 2, 3
) AS booked USING (campaign_id, customer_id, order_id)
WHERE used.discount IS DISTINCT FROM booked.placed
   OR (used.released_at IS NOT NULL) IS DISTINCT FROM (booked.applied = booked.reversed);

-- check: codes
-- A pooled code names the order on which it is redeemed, and no other code does.
-- in part: orders
SELECT code, codes.order_id AS by_code, redeemed.order_id AS by_redemption
FROM (SELECT code, campaign_id, order_id FROM codes WHERE order_id IS NOT NULL) AS codes
FULL JOIN (
    SELECT coupon ->> 'code' AS code, used.order_id
    FROM redemptions AS used JOIN decisions USING (order_id), json_array_elements(decision -> 'coupons') AS coupon
    WHERE used.released_at IS NULL AND coupon ->> 'campaign_id' = used.campaign_id AND (coupon ->> 'pooled')::boolean
) AS redeemed USING (code)
WHERE codes.order_id IS DISTINCT FROM redeemed.order_id;

-- check: facts
-- A fact has its outcome or waits for its placing or its final basket, and no outcome comes without its fact.
-- in part: orders
SELECT order_id, fact,
       CASE WHEN facts.order_id IS NULL THEN 'no such fact'
            WHEN baskets.order_id IS NULL AND outbox.order_id IS NOT NULL THEN 'outcome without a placing'
            WHEN baskets.order_id IS NULL THEN 'unplaced and not waiting'
            WHEN waiting.order_id IS NOT NULL AND outbox.order_id IS NOT NULL THEN 'in effect and still waiting'
            WHEN waiting.order_id IS NOT NULL THEN 'has nothing to wait for'
            ELSE 'no outcome' END AS fault
FROM (SELECT order_id, fact, data FROM facts WHERE order_id <> '') AS facts
FULL JOIN waiting USING (order_id, fact)
FULL JOIN (SELECT order_id, fact FROM outbox WHERE order_id <> '') AS outbox USING (order_id, fact)
LEFT JOIN baskets USING (order_id)
WHERE facts.order_id IS NULL
   OR CASE WHEN baskets.order_id IS NULL THEN waiting.order_id IS NULL OR outbox.order_id IS NOT NULL
           WHEN NOT baskets.finalized AND (baskets.placed ->> 'estimated')::boolean
                AND (fact = 'delivery' OR starts_with(fact, 'refund:') AND facts.data -> 'lines' IS NOT NULL)
               THEN waiting.order_id IS NULL OR outbox.order_id IS NOT NULL
           ELSE waiting.order_id IS NOT NULL OR outbox.order_id IS NULL END
UNION ALL
SELECT order_id, 'placing', 'decision without a placing' FROM decisions
WHERE NOT EXISTS (SELECT FROM facts WHERE facts.order_id = decisions.order_id AND facts.fact = 'placing')
UNION ALL
SELECT order_id, 'placing', 'placing without a decision' FROM facts
WHERE fact = 'placing' AND NOT EXISTS (SELECT FROM decisions WHERE decisions.order_id = facts.order_id)
UNION ALL
SELECT order_id, 'final-basket', 'final basket without its fact' FROM final_baskets
WHERE NOT EXISTS (SELECT FROM facts WHERE facts.order_id = final_baskets.order_id AND facts.fact = 'final-basket')
UNION ALL
SELECT DISTINCT order_id, '', 'facts without an order' FROM facts
WHERE order_id <> '' AND NOT EXISTS (SELECT FROM orders WHERE orders.order_id = facts.order_id)
UNION ALL
SELECT '', fact, 'grant without its record' FROM facts
WHERE order_id = '' AND NOT EXISTS (SELECT FROM grants WHERE grants.key = substr(facts.fact, 7));

-- check: digests
-- A fact's content still has the digest that it came with.
-- in part: orders
SELECT order_id, fact, source, event_id FROM facts  -- of a grant it covers what a file or a command would say too
WHERE digest <> sha256(convert_to(
    CASE fact WHEN 'placing' THEN 'order-placed.v1' WHEN 'delivery' THEN 'delivery-completed.v1'
              WHEN 'final-basket' THEN 'order-finalized.v1' WHEN 'cancelling' THEN 'order-cancelled.v1'
              ELSE CASE WHEN order_id = '' THEN 'credit-grant-requested.v1' ELSE 'order-refunded.v1' END END
    || chr(10) || CASE WHEN order_id = ''
        THEN regexp_replace(data::text, ',"(?:requested_at|reason)":"(?:[^"\\]|\\.)*"', '', 'g')
        ELSE data::text END, 'UTF8'));

-- check: outcomes
-- The outcomes of an order are numbered 1, 2, 3 without a gap, one a fact.
-- in part: orders
SELECT order_id, count(*) AS outcomes, min(outbox.sequence) AS first, max(outbox.sequence) AS last,
       count(DISTINCT fact) AS facts, max((orders.totals ->> 'outcomes')::int) AS counted
FROM outbox LEFT JOIN orders USING (order_id) WHERE order_id <> '' GROUP BY order_id
HAVING min(outbox.sequence) <> 1 OR max(outbox.sequence) <> count(*) OR count(DISTINCT outbox.sequence) <> count(*)
    OR count(DISTINCT fact) <> count(*) OR coalesce(max((orders.totals ->> 'outcomes')::int), 1) <> count(*);

-- check: unpublished-marks
-- Whatever is marked as still to be published is there.
SELECT destination, outbox_id FROM outbox_unpublished
WHERE NOT EXISTS (SELECT FROM outbox WHERE outbox.outbox_id = outbox_unpublished.outbox_id);

-- check: publications
-- Every outcome that was due at a destination is marked there as unpublished, or part of a publication.
-- in part: orders
WITH destined AS (
    SELECT destination, gone FROM destinations, LATERAL (
        SELECT unnest(
            coalesce((SELECT range_agg(outbox_ids) FROM outbox_due WHERE destination = ANY (outbox_due.destinations)), '{}')
            - coalesce((SELECT range_agg(outbox_ids) FROM publications AS p WHERE p.destination = destinations.destination), '{}')
            - coalesce((SELECT range_agg(int8range(outbox_id, outbox_id, '[]')) FROM outbox_unpublished AS u
                        WHERE u.destination = destinations.destination), '{}')
        ) AS gone
    ) AS vanished
)
SELECT destination, outbox_id, order_id, fact
FROM destined JOIN outbox ON outbox_id >= lower(gone) AND outbox_id < upper(gone);

-- check: publication-sizes
-- A publication holds as many outcomes as it says.
-- in part: orders
SELECT publication_id, destination, outcomes, held
FROM publications, LATERAL (SELECT sum(upper(ids) - lower(ids)) AS held FROM unnest(outbox_ids) AS ids) AS counted
WHERE held <> outcomes;

-- check: anomalies
-- A line is listed as exceeded exactly when more of it is claimed back than it was worth, and with how much.
-- in part: orders
SELECT order_id, subject, asked.claimed, noted.claimed AS noted
FROM (
    SELECT order_id, line_id AS subject, claimed
    FROM orders JOIN baskets USING (order_id), LATERAL ROWS FROM (
        json_array_elements_text(counts -> 'line_ids'), json_array_elements_text(counts -> 'gross'),
        json_array_elements_text(totals -> 'undelivered'), json_array_elements_text(totals -> 'refunded_undelivered'),
        json_array_elements_text(totals -> 'returned')
    ) AS line (line_id, gross, undelivered, refunded, returned), LATERAL (
        SELECT greatest(coalesce(undelivered::numeric, 0), coalesce(refunded::numeric, 0))
               + coalesce(returned::numeric, 0) AS claimed
    ) AS facts
    WHERE coalesce(totals -> 'undelivered', totals -> 'refunded_undelivered', totals -> 'returned') IS NOT NULL
      AND claimed > gross::numeric
) AS asked
FULL JOIN (SELECT order_id, subject, claimed FROM anomalies WHERE reason = 'exceeds-gross') AS noted USING (order_id, subject)
WHERE least(asked.claimed, 9223372036854775807) IS DISTINCT FROM noted.claimed;

-- check: anomaly-resolutions
-- What was said when an anomaly was resolved is kept.
SELECT order_id, reason, subject, resolved_at FROM anomalies
WHERE resolved_at IS NOT NULL AND NOT EXISTS (
    SELECT FROM anomaly_resolutions AS kept
    WHERE kept.order_id = anomalies.order_id AND kept.reason = anomalies.reason AND kept.subject = anomalies.subject
      AND kept.resolved_at = anomalies.resolved_at AND kept.resolution = anomalies.resolution
);

-- check: terms
-- The version of the terms that a decision names is kept.
-- in part: orders
SELECT order_id, used.campaign_id, used.version
FROM decisions, LATERAL (
    SELECT coupon ->> 'campaign_id' AS campaign_id, (coupon ->> 'version')::int AS version FROM json_array_elements(decision -> 'coupons') AS coupon
    UNION ALL
    SELECT earned ->> 'campaign_id', (earned ->> 'version')::int FROM json_array_elements(decision -> 'earned') AS earned
    UNION ALL
    SELECT refusal ->> 'campaign_id', (refusal ->> 'version')::int FROM json_array_elements(decision -> 'refusals') AS refusal
    WHERE refusal ->> 'campaign_id' IS NOT NULL
) AS used
WHERE NOT EXISTS (
    SELECT FROM campaign_versions AS kept WHERE kept.campaign_id = used.campaign_id AND kept.version = used.version
);
