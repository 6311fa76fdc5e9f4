"""Authentication: tokens, the caller of a request, and a cache of verified tokens."""
