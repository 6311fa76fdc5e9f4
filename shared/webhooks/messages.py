"""The messages to webhooks."""


def message_id(webhook_id: int, seq: int | None, delivery_id: int) -> str:
    """The `webhook-id` of an event, or of a test event (`seq` is None).

    It depends on nothing else, so that retries, replays and recoveries have the same one.
    """
    return f"msg_{webhook_id}_{seq}" if seq is not None else f"msg_{webhook_id}_test_{delivery_id}"
