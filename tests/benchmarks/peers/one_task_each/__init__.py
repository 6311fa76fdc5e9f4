"""The same job with our own parts, well tuned, and no batching: one request, one commit, one task, one prompt.

Flask under gunicorn with gevent, psycopg2, Celery on Valkey, flask-sock. The API inserts the prompt and sends a task; a
worker claims the prompt, answers and embeds it (with our generator and our embedder), completes it in one statement
(the prompt, the user's number, the vector's row) and publishes; the API process subscribes once, and relays to its
sockets.

Left out: limits, idempotency, leases, attempts and their fence, retries, hand-over at a stop, catching up from the
feed, revocation of tokens, search, hardened sockets, logs. A task that is lost stays lost.
"""
