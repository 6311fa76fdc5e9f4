"""Prompts that differ in an identifier, and searches for one of them.

Each kind has some sentences, which all of its identifiers share: so only the identifier tells its prompt from the
others. A third of the prompts names it in a short question, a third in a long text, and a third only in the answer.
"""

from typing import NamedTuple

#: How many prompts each kind has.
COUNT = 60


class Identified(NamedTuple):
    """A prompt, its answer, and what its user searches for later."""

    kind: str
    place: str  #: where the identifier is
    prompt: str
    answer: str
    query: str


_FIRST = "Ada Björn Chen Dmitri Elif Fatima Goran Hannah Ingrid Jamal Kofi Leïla".split()  # noqa: SIM905
_LAST = "Okafor Lindqvist Papadakis Nakamura Szabó".split()  # noqa: SIM905
_VERBS = "fetch parse merge flush encode validate".split()  # noqa: SIM905
_NOUNS = "customer_orders session_tokens price_table audit_log user_profile cache_entry".split()  # noqa: SIM905
_CLASSES = "NullPointer IndexOutOfBounds ConnectionReset IllegalState ClassCast Timeout".split()  # noqa: SIM905
_PACKAGES = "Billing Search Import Session Export Mail Webhook Ledger Catalog Report".split()  # noqa: SIM905


def _identifiers() -> dict[str, tuple[list[str], str, str, str]]:
    """For each kind: identifiers, a question that names one, one that does not, and the answer to that."""
    numbers = range(COUNT)
    return {
        "error codes": (
            [f"ERR_{('CONN', 'AUTH', 'DISK')[i % 3]}_{4700 + 7 * i}" for i in numbers],
            "Our service logs {} after a restart. What does it mean?",
            "Our service logs an error after a restart. What does it mean?",
            "The service reports {}: the other side closed the connection. Restart the proxy first.",
        ),
        "order numbers": (
            [f"ORD-2024-{317 + 13 * i:05}" for i in numbers],
            "Write a polite reply to the customer who asks where order {} is",
            "Write a polite reply to the customer who asks where the order is",
            "Dear customer, your order {} has left our warehouse and arrives on Friday.",
        ),
        "e-mail addresses": (
            [f"{_FIRST[i % 12].lower()}.{_LAST[i % 5].lower()}@mail{i % 4}.example.com" for i in numbers],
            "Draft an invitation to the planning meeting for {}",
            "Draft an invitation to the planning meeting for the new colleague",
            "To: {}\nSubject: Planning meeting\nWe would like to invite you on Monday at ten.",
        ),
        "paths": (
            [f"/etc/{_VERBS[i % 6]}.d/{i:02}-{_NOUNS[i // 10]}.conf" for i in numbers],
            "Which permissions should {} have?",
            "Which permissions should this configuration file have?",
            "Make {} readable by its owner only: chmod 600.",
        ),
        "versions": (
            [f"v{1 + i // 20}.{i % 20}.{(7 * i) % 11}" for i in numbers],
            "Write the release notes of {}",
            "Write the release notes of the next version",
            "Release {}: faster start, fewer bugs, and a new page of settings.",
        ),
        "exceptions": (
            [f"{_PACKAGES[i // 6]}{_CLASSES[i % 6]}Exception" for i in numbers],
            "How do I handle a {} in Java?",
            "How do I handle this exception in Java?",
            "Catch the {} where you can do something about it, and log the rest.",
        ),
        "functions": (
            [f"{_VERBS[i % 6]}_{_NOUNS[i // 6 % 6]}_{'abcdefghij'[i // 6]}" for i in numbers],
            "Add a docstring to {}()",
            "Add a docstring to this function",
            "def {}(): ...  # now with a docstring that says what it returns",
        ),
        "people": (
            [f"{_FIRST[i % 12]} {_LAST[i // 12]}" for i in numbers],
            "Write a letter of recommendation for {}",
            "Write a letter of recommendation for my student",
            "I have known {} for three years, and recommend them without reservation.",
        ),
    }


PLACES = ("short prompt", "long prompt", "answer")
_BEFORE = """
I am working through a long list of open questions and have collected everything that I know so far. The first part
is background: our team took the system over in spring, moved it to new machines in summer, and has since replaced
most of what we found. The monitoring shows nothing unusual, the disks are half empty, the network is quiet at night,
and nobody has changed the configuration for weeks. We keep a diary of all changes, which I have read twice.
"""
_AFTER = """
Please take into account that we cannot change the hardware before the end of the year, that the budget is spent,
and that two colleagues are on leave until October. The customers have been told that we are looking into everything,
so a careful answer matters more than a quick one. If something is unclear, write down which assumptions you make,
and give the steps in the order in which I should try them, with the least risky ones first.
"""


def prompt_of(kind: str, place: str, identifier: str, sentences: tuple[str, str, str], query: str) -> Identified:
    """A prompt with an identifier, or whose answer has it."""
    naming, silent, answer = sentences
    if place == "answer":
        return Identified(kind, place, silent, answer.format(identifier), query)
    question = naming.format(identifier)
    return Identified(
        kind, place, question if place == "short prompt" else _BEFORE + question + _AFTER, "I see.", query
    )


def identified() -> list[Identified]:
    """Return all prompts with identifiers."""
    prompts = []
    for kind, (identifiers, *sentences) in _identifiers().items():
        for i, each in enumerate(identifiers):
            query = each if i % 2 else f"what did I ask about {each}"
            prompts.append(prompt_of(kind, PLACES[i % 3], each, tuple(sentences), query))
    return prompts
