"""Attacks of users who are logged in on the queue: hoards of prompts, retries in a loop, an unavailable provider."""

import time
from functools import partial

from tests.faults.neighbours.attacker import Attacker, Client, repeat, split
from tests.support.people import Person
from tests.support.providers import Commanded

_SENDERS = 8
#: The generator takes 0.1 s for it.
_TENTH = "slow 1"


def cancel_and_retry(attacker: Attacker) -> None:
    """Cancel and retry prompts in a loop, in two places."""

    def turn(client: Client) -> None:
        if (prompt_id := client.submit(_TENTH)) is None:
            return
        while not attacker.is_over and client.call("POST", f"/prompts/{prompt_id}/cancel/")[0] == 200:
            client.call("POST", f"/prompts/{prompt_id}/retry/")

    clients = [attacker.client(user) for user in attacker.users[:2]]
    attacker.begin()
    attacker.together(*(partial(repeat, attacker, partial(turn, client)) for client in clients))


def retried_hoard(attacker: Attacker) -> None:
    """Retry a hoard of cancelled prompts, again and again."""
    clients = [attacker.client(attacker.users[0]) for _ in range(_SENDERS)]
    hoards: list[list[int]] = [[] for _ in clients]

    def prepare(client: Client, hoard: list[int], count: int) -> None:
        hoard += client.submit_all(_TENTH, count)
        for prompt_id in hoard:
            client.call("POST", f"/prompts/{prompt_id}/cancel/")

    def retry(client: Client, hoard: list[int]) -> None:
        for prompt_id in hoard:
            if not attacker.is_over:
                client.call("POST", f"/prompts/{prompt_id}/retry/")

    shares = split(attacker.size(500, 40), _SENDERS)
    attacker.together(*(partial(prepare, *each) for each in zip(clients, hoards, shares, strict=True)))
    attacker.counts.clear()
    attacker.begin()
    retries = [partial(retry, *each) for each in zip(clients, hoards, strict=True)]
    attacker.together(*(partial(repeat, attacker, each) for each in retries))


def queue_of_one(attacker: Attacker) -> None:
    """Queue as many prompts as a user may."""
    _fill_queue(attacker, attacker.users[0], attacker.size(1_000, 100))
    attacker.begin()
    attacker.wait()


def queues_of_ten(attacker: Attacker) -> None:
    """Queue many prompts of each of ten users."""
    for user in attacker.users[:10]:
        _fill_queue(attacker, user, attacker.size(400, 10))
    attacker.begin()
    attacker.wait()


def equal_shares(attacker: Attacker) -> None:
    """One user has many prompts queued; beside it, others submit again whenever they are answered."""

    def submit_again(user: Person) -> None:
        client = attacker.client(user)
        while not attacker.is_over:
            client.call("POST", "/prompts/", {"prompt_text": _TENTH}, Prefer="wait=30")

    others = attacker.users[1 : 1 + attacker.size(20, 8)]
    _fill_queue(attacker, attacker.users[0], attacker.size(1_000, 60))
    attacker.begin()
    attacker.together(*(partial(submit_again, user) for user in others))


def unavailable_provider(attacker: Attacker) -> None:
    """Queue as many prompts as a user may, and more, while the provider is unavailable."""
    client = attacker.client(attacker.users[0])
    Commanded.absence.touch()
    try:
        _fill_queue(attacker, attacker.users[0], attacker.size(1_000, 50))
        attacker.begin()
        while not attacker.is_over:
            client.submit(_TENTH)
            time.sleep(0.01)
    finally:
        Commanded.absence.unlink()


def _fill_queue(attacker: Attacker, user: Person, count: int) -> None:
    clients = [attacker.client(user) for _ in range(_SENDERS)]
    shares = split(count, _SENDERS)
    attacker.together(*(partial(each.submit_all, _TENTH, n) for each, n in zip(clients, shares, strict=True)))
