"""The headers of a delivery, by the Standard Webhooks specification (https://www.standardwebhooks.com)."""

from collections.abc import Sequence
from datetime import datetime

from standardwebhooks import Webhook


def sign(message_id: str, moment: datetime, body: str, keys: Sequence[bytes]) -> dict[str, str]:
    """The headers that identify and sign a body.

    Args:
        message_id: The same each time the event is sent.
        moment: Of this attempt, with its time zone, because receivers refuse old ones.
        keys: While a secret is replaced, the new one and the old one: a receiver accepts any signature that it knows.
    """
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": " ".join(Webhook(key).sign(message_id, moment, body) for key in keys),
    }
