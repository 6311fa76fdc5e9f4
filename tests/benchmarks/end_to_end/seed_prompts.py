"""Seeds a database with completed prompts."""

import contextlib
import time

import psycopg2

from shared.settings import Settings

# Every user gets the same number of prompts; their feed numbers continue where the user's feed ends. There are no
# vectors: `make bench-search` measures searches.
_PROMPTS = """
    INSERT INTO prompts (user_id, prompt_text, response_text, status, websocket, request_id, attempt, attempt_limit,
                         seq, created_at, completed_at)
    SELECT users.id, 'Why do the tides of the ocean follow the moon, and what of number ' || number || '?',
           'You asked “Why do the tides of the ocean follow the moon”. That is a good question. A real model would '
           'answer it here; this answer is simulated.',
           'completed', false, 'bench', 1, 5, users.seq + number, now(), now()
    FROM generate_series(1, %(each)s) AS number, users
"""
_FEED = """
    INSERT INTO feed (user_id, seq, prompt_id, change, at)
    SELECT prompts.user_id, prompts.seq, prompts.id, 'completed', prompts.completed_at
    FROM prompts JOIN users ON users.id = prompts.user_id WHERE prompts.seq > users.seq
"""
_NUMBERS = "UPDATE users SET seq = seq + %(each)s"


def seed(settings: Settings, count: int) -> float:
    """Add prompts until the database holds about `count`. Return how long it took, in seconds."""
    started = time.perf_counter()
    url = settings.database_url.get_secret_value()
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT (SELECT count(*) FROM prompts), (SELECT count(*) FROM users)")
        present, users = cursor.fetchone()
        each = max((count - present) // users, 0)
        for statement in (_PROMPTS, _FEED, _NUMBERS):
            cursor.execute(statement, {"each": each})
        connection.commit()
        connection.autocommit = True
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")
    return time.perf_counter() - started
