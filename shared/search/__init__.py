"""Finding a user's own prompts by meaning: a log of vectors in Postgres, and FAISS replicas that follow it."""
