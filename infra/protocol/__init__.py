"""A model of the protocol between PostgreSQL, Redis, workers and sockets, checked by Spin (`make check-protocol`)."""
