"""The peer's tables and statements. procrastinate has its own tables beside them."""

TABLES = """
CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    username text NOT NULL UNIQUE
);
CREATE TABLE prompts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    prompt_text text NOT NULL,
    response_text text,
    status text NOT NULL DEFAULT 'queued',
    embedding bytea,  -- 384 little-endian float32
    created_at timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz
);
CREATE INDEX prompts_of_user ON prompts (user_id, id);
"""

SUBMIT = "INSERT INTO prompts (user_id, prompt_text) VALUES (%s, %s) RETURNING id, status, created_at"
READ = "SELECT user_id, prompt_text FROM prompts WHERE id = %s"
COMPLETE = """
UPDATE prompts SET response_text = %s, embedding = %s, status = 'completed', completed_at = now()
WHERE id = %s AND status = 'queued'
RETURNING completed_at
"""
