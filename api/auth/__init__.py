"""Who calls: access tokens, and what a process remembers of them."""
