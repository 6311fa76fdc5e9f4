"""The commands `promptwire webhooks …`."""

from collections.abc import Sequence
from typing import Any, get_args

import click

from .options import Integer, Options, common_options
from .output import local_time, one_line
from .webhooks import Delivery, DeliveryStatus, EventType, Webhook


@click.group()
@common_options
def webhooks() -> None:
    """Send events to your server, and see the results."""


_id = click.argument("webhook_id", metavar="ID", type=Integer(1))
_events = click.option(
    "--event", "events", type=click.Choice(get_args(EventType)), multiple=True, help="Send this event; repeatable."
)
_description = click.option("--description", help="A note for yourself.")


@webhooks.command()
@click.argument("endpoint", metavar="URL")
@_events
@_description
@common_options
@click.pass_obj
def create(options: Options, endpoint: str, events: Sequence[EventType], description: str | None) -> None:
    """Send events to URL: all of them, or those that you name."""
    with options.client() as client:
        webhook = client.webhooks.create(endpoint, events=events or None, description=description or "")
    options.output.result(webhook, f"Webhook {webhook['id']} was created. {_secret(webhook)}")


@webhooks.command("list")
@common_options
@click.pass_obj
def list_webhooks(options: Options) -> None:
    """Show your webhooks."""
    with options.client() as client:
        found = client.webhooks.list()
    options.output.results(
        found,
        ("ID", "STATUS", "EVENTS", "URL"),
        lambda webhook: (str(webhook["id"]), webhook["status"], _event_types(webhook), one_line(webhook["url"])),
    )


@webhooks.command()
@_id
@common_options
@click.pass_obj
def show(options: Options, webhook_id: int) -> None:
    """Show a webhook and its state.

    It is enabled, paused or disabled; if it is not enabled, the reason is shown.
    """
    with options.client() as client:
        webhook = client.webhooks.show(webhook_id)
    options.output.result(webhook, _description_of(webhook))


@webhooks.command()
@_id
@click.option("--endpoint", metavar="URL", help="Send events there.")
@_events
@click.option("--all-events", is_flag=True, help="Send all events but batch.progress.")
@_description
@click.option("--disable/--enable", "disabled", default=None, help="Send nothing any more, or again.")
@common_options
@click.pass_obj
def update(
    options: Options,
    webhook_id: int,
    endpoint: str | None,
    events: Sequence[EventType],
    all_events: bool,
    description: str | None,
    disabled: bool | None,
) -> None:
    """Change a webhook."""
    given = {"url": endpoint, "description": description, "disabled": disabled}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if events or all_events:
        changes["events"] = None if all_events else events
    with options.client() as client:
        webhook = client.webhooks.update(webhook_id, **changes)
    options.output.result(webhook, _description_of(webhook))


@webhooks.command()
@_id
@common_options
@click.pass_obj
def delete(options: Options, webhook_id: int) -> None:
    """Delete a webhook. What is pending is not sent any more."""
    with options.client() as client:
        client.webhooks.delete(webhook_id)
    options.output.note(f"Webhook {webhook_id} was deleted.")


@webhooks.command()
@_id
@common_options
@click.pass_obj
def rotate(options: Options, webhook_id: int) -> None:
    """Give a webhook a new secret. The old one signs, too, for 24 hours."""
    with options.client() as client:
        webhook = client.webhooks.rotate(webhook_id)
    options.output.result(webhook, _secret(webhook))


@webhooks.command()
@_id
@common_options
@click.pass_obj
def test(options: Options, webhook_id: int) -> None:
    """Send the event webhook.test."""
    with options.client() as client:
        delivery = client.webhooks.test(webhook_id)
    options.output.result(
        delivery, f"Test event {delivery['id']} will be sent. `webhooks deliveries {webhook_id}` shows the result."
    )


@webhooks.command()
@_id
@click.option("--status", type=click.Choice(get_args(DeliveryStatus)), help="Show only deliveries with this status.")
@click.option("--limit", type=Integer(1), default=20, show_default=True, help="How many deliveries to show.")
@click.option("--all", "everything", is_flag=True, help="Show all deliveries.")
@common_options
@click.pass_obj
def deliveries(options: Options, webhook_id: int, status: DeliveryStatus | None, limit: int, everything: bool) -> None:
    """Show what was sent, newest first."""
    with options.client() as client:
        found = client.webhooks.deliveries(webhook_id, status=status, limit=None if everything else limit)
        header = ("ID", "SEQ", "EVENT", "STATUS", "QUEUED", "ATTEMPTS", "LAST ATTEMPT")
        options.output.results(found, header, _delivery_row)


@webhooks.command()
@_id
@click.argument("delivery_id", metavar="DELIVERY", type=Integer(1))
@common_options
@click.pass_obj
def replay(options: Options, webhook_id: int, delivery_id: int) -> None:
    """Send an event again.

    DELIVERY is the ID that `webhooks deliveries` shows.
    """
    with options.client() as client:
        delivery = client.webhooks.replay(webhook_id, delivery_id)
    options.output.result(delivery, f"Delivery {delivery_id} will be sent again.")


@webhooks.command()
@_id
@click.option("--since", metavar="SEQ", type=Integer(0), required=True, help="The last event that you have.")
@common_options
@click.pass_obj
def recover(options: Options, webhook_id: int, since: int) -> None:
    """Send every event after SEQ again, in order."""
    with options.client() as client:
        count = client.webhooks.recover(webhook_id, since)
    options.output.result({"deliveries": count}, f"{count} event{'' if count == 1 else 's'} will be sent again.")


def _secret(webhook: Webhook) -> str:
    return f"Its secret, which is not shown again:\n{webhook['secret']}"


def _event_types(webhook: Webhook) -> str:
    events = webhook["events"]
    return "all" if events is None else ", ".join(events)


def _description_of(webhook: Webhook) -> str:
    fields = {
        "webhook": str(webhook["id"]),
        "url": webhook["url"],
        "events": _event_types(webhook),
        "status": webhook["status"],
        "reason": webhook["disabled_reason"] or "",
        "paused until": local_time(webhook["paused_until"]) if webhook["paused_until"] else "",
        "failures": str(webhook["failures"] or ""),
        "description": one_line(webhook["description"]),
    }
    return "\n".join(f"{name:<12}  {value}" for name, value in fields.items() if value)


def _delivery_row(delivery: Delivery) -> Sequence[str]:
    attempts = delivery["attempts"]
    last = attempts[-1] if attempts else None
    return (
        str(delivery["id"]),
        str(delivery["seq"] or ""),
        delivery["event"],
        delivery["status"],
        local_time(delivery["created_at"]),
        str(len(attempts)),
        one_line(last["error"] or str(last["status_code"])) if last else "",
    )
