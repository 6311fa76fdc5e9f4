"""Finding the nearest of one user's vectors among many users', by us and by others: `make bench-search`."""
