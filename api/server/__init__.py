"""What runs beneath Flask: gunicorn's worker, connections and their limits, psycopg2 under gevent, native threads."""
