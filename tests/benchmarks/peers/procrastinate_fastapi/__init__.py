"""The same job with PostgreSQL as the queue: FastAPI, procrastinate, psycopg, uvloop.

A submission and its job are stored in one transaction, so none can be lost between two stores. A worker is notified,
answers and embeds the prompt (with our generator and our embedder, so that this work is equal), stores both and
publishes over Redis, as all contenders do. The API process has one subscription and relays to its sockets.

Left out: limits, idempotency, retries of a failed job, a numbered feed and catching up, revocation of tokens, search,
logs. The job of a worker that was killed stays where it is until somebody retries stalled jobs.
"""
