"""Creates the peer's tables and fills them: `python -m tests.benchmarks.peers.original.fill < lines`.

Each line is a JSON list: either a username, or a username, a prompt's text and its answer. The output is one token of
each user per line, in the order of their first line.
"""

import json
import os
import sys
from collections.abc import Sequence
from datetime import timedelta

import django
from django.core.management import call_command

from tests.benchmarks.peers.serving import TOKEN_HOURS


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.benchmarks.peers.original.settings"
    django.setup()
    call_command("migrate", verbosity=0)
    print("\n".join(fill([json.loads(line) for line in sys.stdin])))


def fill(rows: Sequence[Sequence[str]]) -> list[str]:
    """Store users and prompts. Return an access token of each user."""
    from django.contrib.auth.models import User
    from rest_framework_simplejwt.tokens import AccessToken

    from tests.benchmarks.peers.original.prompts.index import embed
    from tests.benchmarks.peers.original.prompts.models import Prompt

    users = {name: User.objects.create(username=name) for name in dict.fromkeys(row[0] for row in rows)}
    prompts = (
        Prompt(user=users[name], prompt_text=text, response_text=answer, embedding=embed(text).tolist())
        for name, text, answer in (row for row in rows if len(row) == 3)
    )
    Prompt.objects.bulk_create(prompts, batch_size=1_000)
    tokens = [AccessToken.for_user(user) for user in users.values()]
    for token in tokens:
        token.set_exp(lifetime=timedelta(hours=TOKEN_HOURS))
    return [str(token) for token in tokens]


if __name__ == "__main__":
    main()
