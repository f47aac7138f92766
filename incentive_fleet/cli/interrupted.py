"""What holds when a command is interrupted: what is done, what is not, and whether to run it again. Text, nothing else.

A test walks every command and finds it here.
"""

from __future__ import annotations

from typing import Final

READ_ONLY: Final = "Nothing was changed; run it again for the whole answer."
SENTENCES: Final = {
    "anomalies": READ_ONLY,
    "anomalies resolve": "The anomaly is resolved or it is not, never half; resolving it again is safe.",
    "answer-quotes": "What was not answered is still with the broker, until its time is over; run it again.",
    "audiences load": "The file is loaded as a whole or not at all; loading it again is safe.",
    "audiences remove": "All are taken out, or none; removing again is safe.",
    "backfill": "Whole batches are applied, the rest of the file is not; run it again: what is applied is a duplicate.",
    "campaigns list": READ_ONLY,
    "campaigns load": "The file is loaded as a whole or not at all; loading it again is safe and says which.",
    "codes export": READ_ONLY,
    "codes generate": "Whole parts of the batch are there; run it again with the same --batch and --count for the rest.",
    "codes load": "The file is loaded as a whole or not at all; loading it again is safe.",
    "codes revoke": "All are revoked, or none; revoking again is safe.",
    "codes show": READ_ONLY,
    "consume": "What was not committed comes again; run it again.",
    "db upgrade": "Each migration is applied as a whole or not at all; run it again for the rest.",
    "demo": "Nothing is left running.",
    "dlq approve": "The run is approved or it is not; approving it again is safe and says which.",
    "dlq collect": "What was not kept is still with the broker; run it again.",
    "dlq conflict": "The correction is booked or it is not, never half; running it again is safe and says which.",
    "dlq discard": "Whole portions are discarded, the rest is open; `incentives dlq resume RUN` goes on with it.",
    "dlq edit": "Whole portions are edited, the rest is as it was; `incentives dlq resume RUN` goes on, `undo RUN` takes it back.",
    "dlq export": "The lines printed so far are whole; nothing was changed. Run it again for all.",
    "dlq import": "Whole letters are kept, the rest is not; import the file again: what is known is left as it is.",
    "dlq purge": "Whole portions are deleted, the rest is not; run it again for the rest.",
    "dlq groups": READ_ONLY,
    "dlq history": READ_ONLY,
    "dlq list": READ_ONLY,
    "dlq redirect": "What is sent stays sent, the rest is open; `incentives dlq resume RUN` goes on: each letter is applied once.",
    "dlq replay": "What is sent stays sent, the rest is open; `incentives dlq resume RUN` goes on: each letter is applied once.",
    "dlq restore": "Whole portions are open again, the rest is not; `incentives dlq resume RUN` goes on with it.",
    "dlq resume": "What was done stays done; `incentives dlq resume RUN` goes on with the rest.",
    "dlq runs": READ_ONLY,
    "dlq show": READ_ONLY,
    "dlq stop": "The run is stopped or it is not; stopping it again is safe and says which.",
    "dlq undo": "Whole portions are taken back, the rest is not; `incentives dlq resume RUN` goes on with it.",
    "dlq watch": "Nothing was changed: the run goes on without being watched.",
    "doctor": READ_ONLY,
    "down": "Some parts may still run; run it again.",
    "expire": "Whole wallets are swept, the others are not; run it again with the same --as-of for the rest.",
    "grant": "The grant is handed out or it is not, never half; the same --key again is safe and says which.",
    "grant reverse": "The grant is taken back or it is not, never half; running it again is safe and says which.",
    "grants load": "Whole batches are granted, the rest of the file is not; load the file again: a key is granted once.",
    "ledger balances": READ_ONLY,
    "ledger export": "The journal printed so far is not complete: throw it away. Nothing was changed; run it again.",
    "ledger verify": "No balance or transfer was changed, and nothing is said of the ledger; run it again.",
    "logins end": "The logins are ended or not; ending them again is safe.",
    "logins list": READ_ONLY,
    "order": READ_ONLY,
    "orders finalize": "The order is finalized or it is not, never half; running it again says which.",
    "outcomes export": "What was printed is not complete. Nothing was changed; run it again.",
    "publish": "What is not counted may have arrived or not; publish the file again: consumers drop what comes twice.",
    "quote": READ_ONLY,
    "relay": "What was not confirmed is published again, with the same ids; run it again.",
    "remind": "What was announced stays so; run it again with the same --as-of and --days for the rest.",
    "schemas check": READ_ONLY,
    "schemas graphql": READ_ONLY,
    "schemas write": "Some files may be written and others not; run it again.",
    "serve": "What was not answered was not done, unless its page says so; ask again.",
    "status": READ_ONLY,
    "tokens create": "A token is made or it is not; `incentives tokens list` says which. Revoke one that was not printed.",
    "tokens list": READ_ONLY,
    "tokens revoke": "The token is revoked or not; revoking it again is safe.",
    "topology apply": "What was declared stays, the rest is missing; run it again: it declares what is missing.",
    "topology check": READ_ONLY,
    "up": "Parts that were started go on: `incentives up` brings the rest, `incentives down` stops them.",
    "waiting": READ_ONLY,
    "wallet": READ_ONLY,
    "wallets hold": "The credit is held or it is not; holding it again is safe and says which.",
    "wallets release": "The credit is released or it is not; releasing it again is safe and says which.",
}


def when_interrupted(command: str) -> str:
    """The sentence for a command as people type it; a group that is interrupted while its command is looked for did nothing."""
    return SENTENCES.get(command, "Nothing was begun.")
