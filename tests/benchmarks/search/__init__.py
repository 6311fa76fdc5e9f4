"""`make bench-search`: measures searches in one user's vectors among those of many users."""
