"""VECTOR_STORE=pgvector: vectors in PostgreSQL."""
