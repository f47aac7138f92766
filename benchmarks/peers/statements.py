"""The SQL of one event: what is locked and read, and what is written. Values are bound, never pasted."""

from __future__ import annotations

from incentive_fleet.ledger.terms import TERMS_LOCK

# The terms' lock comes first, as everywhere; materialized, so that it is taken before the statement goes on.
TERMS = f"WITH terms AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared({TERMS_LOCK}))"
CREATE_ORDER = f"{TERMS} INSERT INTO orders (order_id) SELECT %s FROM terms ON CONFLICT DO NOTHING RETURNING 1"
LOCK_ORDER = f"{TERMS} SELECT 1 FROM terms, orders WHERE order_id = %s FOR NO KEY UPDATE OF orders"
CREATE_WALLET = "INSERT INTO wallets (customer_id, currency) VALUES (%s, %s) ON CONFLICT DO NOTHING"
LOCK_WALLET = "SELECT 1 FROM wallets WHERE customer_id = %s AND currency = %s FOR NO KEY UPDATE"
LOCK_WALLET_OF_ORDER = """
    SELECT 1 FROM wallets w JOIN decisions d USING (customer_id, currency) WHERE d.order_id = %s FOR NO KEY UPDATE OF w
"""
# Statements of their own after the locks, for a statement that waits for a lock still sees the rows as they were before.
REVISION_AND_DIGESTS = """
    SELECT (SELECT revision FROM campaign_revision),
           (SELECT digest FROM facts WHERE order_id = %s AND fact = %s),
           (SELECT digest FROM facts WHERE event_id = %s AND source = %s),
"""
WALLET = "w.balance, w.debt, w.last_lot_no"
OF_WALLET = "LEFT JOIN wallets w ON w.customer_id = k.customer_id AND w.currency = k.currency"
READ_FOR_PLACING = f"""
    {REVISION_AND_DIGESTS} (SELECT count(*) FROM waiting WHERE order_id = %s), {WALLET}
    FROM (SELECT %s::text AS customer_id, %s::text AS currency) AS k {OF_WALLET}
"""
READ_FOR_UNDOING = f"""
    {REVISION_AND_DIGESTS} k.customer_id, k.currency, k.decision, k.totals, {WALLET}
    FROM (SELECT %s::text AS order_id) AS e
    LEFT JOIN (SELECT * FROM decisions d JOIN orders o USING (order_id)) AS k USING (order_id) {OF_WALLET}
"""
READ_WAITING = """
    SELECT f.fact, f.source, f.event_id, f.digest, f.traceparent, f.data::text
    FROM waiting w JOIN facts f USING (order_id, fact) WHERE w.order_id = %s
"""
LOT = """lot_no, campaign_id, amount, remaining, expires_at, reissue_days, root_lot_no, reissued_from, expired,
    l.order_id, cause, created_at"""
READ_LIVE_LOTS = f"SELECT {LOT} FROM lots l WHERE customer_id = %s AND currency = %s AND live"
READ_LOTS_OF_ORDER = f"""
    SELECT {LOT} FROM decisions d JOIN lots l USING (customer_id, currency) WHERE d.order_id = %s
"""
LOCK_CAMPAIGNS = "SELECT 1 FROM campaigns WHERE campaign_id = ANY(%s) ORDER BY campaign_id FOR NO KEY UPDATE"
READ_REDEMPTIONS = """
    SELECT campaign_id, count(*) FROM redemptions
    WHERE campaign_id = ANY(%s) AND customer_id = %s AND released_at IS NULL GROUP BY campaign_id
"""
READ_SPENT = """
    SELECT c.campaign_id,
        (SELECT coalesce(sum(b.balance), 0)::bigint FROM balances b
         WHERE b.account = 'campaign:' || c.campaign_id AND b.currency = c.currency),
        (SELECT coalesce(sum(r.live), 0)::bigint FROM redemption_counts r WHERE r.campaign_id = c.campaign_id)
    FROM campaigns c WHERE c.campaign_id = ANY(%s)
"""
INSERT_FACT = "INSERT INTO facts (order_id, fact, source, event_id, digest, traceparent, happened_at, data)"
INSERT_DECISION = "INSERT INTO decisions (order_id, customer_id, currency, decision)"
INSERT_WAITING = "INSERT INTO waiting (order_id, fact)"
DELETE_WAITING = "DELETE FROM waiting WHERE order_id = %s AND fact = %s"
INSERT_LOTS = """INSERT INTO lots (customer_id, currency, lot_no, campaign_id, amount, remaining, expired, expires_at,
    reissue_days, root_lot_no, reissued_from, order_id, cause, created_at)"""
UPDATE_LOT = "UPDATE lots SET remaining = %s, expired = %s WHERE customer_id = %s AND currency = %s AND lot_no = %s"
INSERT_TRANSFERS = """INSERT INTO transfers (kind, debit_account, credit_account, currency, amount, customer_id,
    order_id, lot_no, cause, happened_at)"""
INSERT_REDEMPTIONS = "INSERT INTO redemptions (campaign_id, customer_id, order_id, discount, redeemed_at)"
RELEASE_REDEMPTION = """
    UPDATE redemptions SET released_at = %s WHERE campaign_id = %s AND customer_id = %s AND order_id = %s
"""
INSERT_ANOMALY = "INSERT INTO anomalies (order_id, reason, subject) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
UPDATE_ORDER = "UPDATE orders SET totals = %s WHERE order_id = %s"
INSERT_OUTCOMES = "INSERT INTO outbox (order_id, fact, sequence, type, body)"
