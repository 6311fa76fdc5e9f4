"""What runs beneath Flask: gunicorn's worker, psycopg2 under gevent, native threads."""
