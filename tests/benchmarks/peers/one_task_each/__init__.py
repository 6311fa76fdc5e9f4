"""The same job with our own stack, well tuned, without batching: one request, one commit, one task, one prompt.

Flask under gunicorn with gevent, psycopg2, Celery on Valkey, flask-sock. The API inserts the prompt and sends a task; a
worker claims the prompt, answers and embeds it (with our generator and our embedder), completes it in one statement
(the prompt, the user's feed number, the vector's row) and publishes. The API process has one subscription and relays to
its sockets.

Left out: limits, idempotency, leases, attempts as fences, retries, releasing prompts at a stop, catching up from the
feed, revocation of tokens, search, hardened sockets, logs. A lost task stays lost.
"""
