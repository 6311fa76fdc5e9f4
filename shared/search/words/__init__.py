"""Search in a user's own prompts by their words, with PostgreSQL's full text search."""
