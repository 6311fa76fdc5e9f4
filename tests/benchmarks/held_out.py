"""Prompts that hybrid search was not made with: other identifiers, questions and paraphrases.

As in `identifiers.py` only the identifier tells a prompt from the others of its kind. Here it is asked for in more
ways: alone, in other case, with a word beside it, and in sentences whose other words no prompt has.
"""

import hashlib

from tests.benchmarks.identifiers import PLACES, Identified, prompt_of

#: How many prompts each kind has.
COUNT = 40

#: How a user asks for an identifier again.
FORMS = (
    "{}",
    "{lower}",
    "{} again",
    "Where did we discuss {}?",
    "can you find the conversation from last week in which somebody mentioned {} to me",
    "I vaguely remember troubleshooting {} together with Priyanka before the holidays; dig that thread up please",
)

_GIVEN = "Zsófia Mbali Søren Tariq Yuki Aoife Paweł Xiomara Ngozi Lucía".split()  # noqa: SIM905
_FAMILY = "Adeyemi Brandvold Castellanos Đorđević".split()  # noqa: SIM905
_ROLES = "db web mq cache".split()  # noqa: SIM905
_SUBJECTS = "revenue headcount inventory churn payroll forecast audit travel marketing tax".split()  # noqa: SIM905


def _digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def _kinds() -> dict[str, tuple[list[str], str, str, str]]:
    """As in `identifiers.py`: identifiers, a question that names one, one that does not, and the answer to that."""
    numbers = range(COUNT)
    return {
        "database errors": (
            [f"ORA-{900 + 37 * i:05}" for i in numbers],
            "The nightly import stops with {}. How can I fix it?",
            "The nightly import stops with an error. How can I fix it?",
            "That is {}: grant the missing privilege, and start the import again.",
        ),
        "status codes": (
            [f"0x8007{4096 + 151 * i:04X}" for i in numbers],
            "Windows Update fails with {} on a laptop",
            "Windows Update fails on a laptop",
            "The code {} means that the service is disabled. Enable it, and restart the laptop.",
        ),
        "tickets": (
            [f"{('OPS', 'WEB', 'CORE')[i % 3]}-{1280 + 3 * i}" for i in numbers],
            "Summarise the discussion in {} for the weekly report",
            "Summarise the discussion in this ticket for the weekly report",
            "{}: the team agreed on a smaller scope, and moves the rest to the next sprint.",
        ),
        "vulnerabilities": (
            [f"CVE-20{15 + i % 10}-{20101 + 317 * i}" for i in numbers],
            "Are our servers affected by {}?",
            "Are our servers affected by this vulnerability?",
            "Only servers that parse images from strangers are affected by {}. Update the library.",
        ),
        "commits": (
            [_digest(i)[:10] for i in numbers],
            "Explain what commit {} changes",
            "Explain what the latest commit changes",
            "Commit {} moves the retry into the client, and removes a flag that nobody sets.",
        ),
        "spreadsheets": (
            [f"{_SUBJECTS[i % 10]}_20{20 + i // 10}_q{1 + i % 4}.xlsx" for i in numbers],
            "Write a formula that sums the second column of {}",
            "Write a formula that sums the second column of the sheet",
            "Open {} and enter =SUM(B2:B500) below the last row.",
        ),
        "hosts": (
            [f"{_ROLES[i % 4]}-{('eu', 'us')[i // 4 % 2]}-{i:02}.prod.example.net" for i in numbers],
            "How full is the disk of {}?",
            "How full is the disk of this machine?",
            "On {} 71 % are in use; the logs of last month can go.",
        ),
        "addresses": (
            [f"10.{20 + i % 7}.{3 * i}.{11 + i}" for i in numbers],
            "Block {} in the firewall",
            "Block this address in the firewall",
            "nft add rule inet filter input ip saddr {} drop",
        ),
        "releases": (
            [f"{2 + i // 16}.{i % 16}.{(5 * i) % 13}-rc{1 + i % 3}" for i in numbers],
            "Is it safe to deploy {} on a Friday?",
            "Is it safe to deploy the release candidate on a Friday?",
            "Wait until Monday: {} has two known regressions in the scheduler.",
        ),
        "customers": (
            [f"{_GIVEN[i % 10]} {_FAMILY[i // 10]}" for i in numbers],
            "Translate the complaint of {} into English",
            "Translate the complaint of our customer into English",
            "{} writes that the parcel was open, and asks for a replacement.",
        ),
    }  # fmt: skip


#: Pairs of questions that mean the same: what was asked, and how it is searched for.
PARAPHRASES = (
    ("How do I boil an egg so that the yolk stays soft?", "cooking time of soft-boiled eggs"),
    ("Why is the sky blue during the day?", "what makes the sky look blue"),
    ("Recommend a short holiday by the sea in May", "ideas for a spring weekend at the coast"),
    ("How can I stop my dog from barking at visitors?", "my dog barks whenever guests arrive, what helps"),
    ("Explain recursion to a ten-year-old", "a simple explanation of recursion for children"),
    ("What is the fastest way to learn Spanish vocabulary?", "memorise Spanish words quickly"),
    ("My bike chain keeps falling off", "the chain of my bicycle comes off all the time"),
    ("Write a birthday poem for my grandmother", "verses for grandma's birthday"),
    ("How do vaccines protect against disease?", "the way a vaccine makes us immune"),
    ("Which plants survive in a dark bathroom?", "houseplants for a bathroom without much light"),
    ("How do I remove red wine from a carpet?", "get a red wine stain out of the rug"),
    ("What should I pack for a hike in the rain?", "packing list for hiking in wet weather"),
    ("Give me tips for a job interview", "how to prepare for a job interview"),
    ("How does a heat pump work?", "the principle behind heat pumps"),
    ("Is it cheaper to rent or to buy a flat?", "buying versus renting an apartment"),
    ("How do I reset my router?", "restore the router to its factory settings"),
    ("Why do cats purr?", "reason for the purring of cats"),
    ("Suggest names for a small bakery", "what could I call my bakery"),
    ("How often should I water a cactus?", "watering a cactus: how frequently"),
    ("What causes inflation?", "reasons why prices rise"),
    ("How can I sleep better at night?", "tips for a good night's sleep"),
    ("Write an apology to a neighbour for the noise", "say sorry to the people next door for being loud"),
    (
        "How do I sort a list of dictionaries by a key in Python?",
        "Python: order dicts in a list by one of their values",
    ),
    ("What is the difference between a virus and a bacterium?", "viruses compared with bacteria"),
    ("How long does it take to fly to the moon?", "travel time from Earth to the moon"),
    ("Which exercises help against back pain?", "workouts for a sore back"),
    ("How do I make sourdough bread?", "baking bread with a sourdough starter"),
    ("What does a product manager do?", "tasks of a product manager"),
    ("How do I teach my child to ride a bicycle?", "help a kid learn cycling"),
    ("Why does metal feel colder than wood?", "wood seems warmer to the touch than metal, why"),
    ("How can I save energy at home?", "reduce the power consumption of my household"),
    ("What is the best way to store tomatoes?", "where to keep tomatoes so that they last"),
    ("How do I politely decline an invitation?", "turn down an invitation without being rude"),
    ("Explain how a bill becomes a law", "the path of legislation from draft to law"),
    ("How do I undo my last commit in git?", "git: revert the most recent commit"),
    ("What is a good present for a teacher?", "gift ideas for my teacher"),
    ("How do bees make honey?", "the production of honey by bees"),
    ("Why do we have leap years?", "purpose of the leap day"),
    ("How can I become more confident when speaking in public?", "overcome the fear of talks before an audience"),
    ("What do the colours of a traffic light mean?", "meaning of red, amber and green at junctions"),
)


def held_out(paraphrases: str) -> list[Identified]:
    """Return all prompts. Those of paraphrases have this kind."""
    prompts = []
    for kind, (identifiers, *sentences) in _kinds().items():
        for i, each in enumerate(identifiers):
            query = FORMS[i % len(FORMS)].format(each, lower=each.lower())
            prompts.append(prompt_of(kind, PLACES[i // 2 % 3], each, tuple(sentences), query))
    return [*prompts, *(Identified(paraphrases, "", asked, "", query) for asked, query in PARAPHRASES)]
