"""Names that look like settings but are none: a mistyped setting would be ignored without a word.

In the environment only names that are nearly the name of a setting are refused, because platforms set hundreds of
names there. `.env` is written for Promptwire and Compose, so there names that begin like ours are refused, too. A name
is left alone if the setting that it resembles is set: then it belongs to another program.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches

#: What only `make up` or docker-compose.yml reads.
OTHER_NAMES = frozenset({"DATA_DIR", "PG_BIN", "VALKEY_SERVER", "POSTGRES_PASSWORD", "MINILM", "OTEL", "TAG"})
#: Names of Celery, OpenTelemetry, AWS, libpq, Compose, and of the command `promptwire`.
_OTHER_PROGRAMS = ("CELERY_", "OTEL_", "AWS_", "PG", "COMPOSE_", "PROMPTWIRE_")
_RENAMED = {"HOST": "LISTEN_ADDRESS"}
_FAMILIES = re.compile(
    r"(OPENAI|WORKER|DATABASE|REDIS|JWT|LOG|SEMANTIC_CACHE|SIMULATED|FEED|MAX)_\w+|(USER|PROMPT|BACKLOG)_\w*LIMIT"
)
#: So similar are two names (difflib) if a letter is missing, added or swapped, or in nine letters another one.
_SIMILARITY = 0.885
#: Two short names are similar by chance.
_MIN_LENGTH = 6


def find_mistakes(settings: Collection[str], environment: Iterable[str], dotenv: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each name that looks like one of `settings`, which are upper-case names."""
    in_environment, in_dotenv = ({name.upper() for name in names} for names in (environment, dotenv))
    known = {*settings, *OTHER_NAMES}
    present = in_environment | in_dotenv
    for name in sorted(present - known):
        if name.startswith(_OTHER_PROGRAMS):
            continue
        similar = _find_similar(name, known)
        if name in in_dotenv and name in _RENAMED:
            similar, sentence = _RENAMED[name], f"{name} in .env is now {_RENAMED[name]}: rename it."
        elif similar is not None:
            sentence = (
                f"{name} is not a setting; is it {similar}? (If {name} is another program's, set {similar}, too.)"
            )
        elif name in in_dotenv and _FAMILIES.fullmatch(name):
            sentence = (
                f"{name} in .env is not a setting: correct it, or if another program reads it, export it instead."
            )
        else:
            continue
        if similar not in present:
            yield sentence


def _find_similar(name: str, known: Iterable[str]) -> str | None:
    if len(name) < _MIN_LENGTH:
        return None
    return next(iter(get_close_matches(name, known, n=1, cutoff=_SIMILARITY)), None)
