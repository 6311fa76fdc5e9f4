"""The same job with what many would pick today: FastAPI, taskiq on Redis streams, SQLAlchemy with asyncpg, uvloop.

A submission is stored, committed and queued: a task of its own, acknowledged when it is done. A worker answers and
embeds the prompt (with our generator and our embedder, so that this work is alike), stores both and publishes; the API
process subscribes once, and relays to its sockets.

Left out: limits, idempotency, leases, retries of a failed task, a numbered feed and catching up, revocation of tokens,
search, logs. A task that is lost between the commit and the queue stays lost; one whose worker died comes again after
ten minutes.
"""
