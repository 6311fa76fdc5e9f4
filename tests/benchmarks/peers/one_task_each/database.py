"""The peer's tables and statements."""

import os

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url

POOL_SIZE = 20

TABLES = """
CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    username text NOT NULL UNIQUE,
    seq bigint NOT NULL DEFAULT 0
);
CREATE TABLE prompts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    prompt_text text NOT NULL,
    response_text text,
    status text NOT NULL DEFAULT 'queued',
    seq bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz
);
CREATE INDEX prompts_of_user ON prompts (user_id, id);
CREATE TABLE vector_log (
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    seq bigint NOT NULL,
    prompt_id bigint NOT NULL,
    vector bytea NOT NULL,  -- 384 little-endian float32
    PRIMARY KEY (user_id, seq)
);
"""

SUBMIT = """
INSERT INTO prompts (user_id, prompt_text) VALUES (%(user_id)s, %(prompt_text)s) RETURNING id, status, created_at
"""

CLAIM = """
UPDATE prompts SET status = 'processing' WHERE id = %(id)s AND status = 'queued' RETURNING user_id, prompt_text
"""

COMPLETE = """
WITH numbered AS (
    UPDATE users SET seq = seq + 1 WHERE id = %(user_id)s RETURNING seq
), completed AS (
    UPDATE prompts SET status = 'completed', response_text = %(response_text)s, seq = numbered.seq, completed_at = now()
    FROM numbered WHERE prompts.id = %(id)s RETURNING prompts.seq, completed_at
), logged AS (
    INSERT INTO vector_log (user_id, seq, prompt_id, vector)
    SELECT %(user_id)s, seq, %(id)s, %(vector)s FROM completed
)
SELECT seq, completed_at FROM completed
"""


def make_engine() -> Engine:
    """Create an autocommit engine, which saves two round trips per statement."""
    url = make_url(os.environ["PEER_DATABASE_URL"]).set(drivername="postgresql+psycopg2")
    return create_engine(url, pool_size=POOL_SIZE, max_overflow=0, isolation_level="AUTOCOMMIT")
