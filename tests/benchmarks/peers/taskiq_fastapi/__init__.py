"""The same job with a common current stack: FastAPI, taskiq on Redis streams, SQLAlchemy with asyncpg, uvloop.

A submission is stored, committed and queued as one task, which is acknowledged when it is done. A worker answers and
embeds the prompt (with our generator and our embedder, so that this work is equal), stores both and publishes. The API
process has one subscription and relays to its sockets.

Left out: limits, idempotency, leases, retries of a failed task, a numbered feed and catching up, revocation of tokens,
search, logs. A task that is lost between the commit and the queue stays lost; the task of a dead worker is redelivered
after ten minutes.
"""
