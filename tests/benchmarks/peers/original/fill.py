"""Makes the peer's tables and fills them: `python -m tests.benchmarks.peers.original.fill < prompts.jsonl`.

Each line is a JSON list: username, text, answer. Writes a token of the first user.
"""

import json
import os
import sys
from datetime import timedelta

import django
from django.core.management import call_command


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.benchmarks.peers.original.settings"
    django.setup()
    call_command("migrate", verbosity=0)
    print(fill([json.loads(line) for line in sys.stdin]))


def fill(rows: list[tuple[str, str, str]]) -> str:
    """Stores the prompts. Returns an access token of whose prompt is the first."""
    from django.contrib.auth.models import User
    from rest_framework_simplejwt.tokens import AccessToken

    from tests.benchmarks.peers.original.prompts.index import embed
    from tests.benchmarks.peers.original.prompts.models import Prompt

    users = {name: User.objects.create(username=name) for name in dict.fromkeys(row[0] for row in rows)}
    prompts = (
        Prompt(user=users[name], prompt_text=text, response_text=answer, embedding=embed(text).tolist())
        for name, text, answer in rows
    )
    Prompt.objects.bulk_create(prompts, batch_size=1_000)
    token = AccessToken.for_user(users[rows[0][0]])
    token.set_exp(lifetime=timedelta(hours=2))
    return str(token)


if __name__ == "__main__":
    main()
