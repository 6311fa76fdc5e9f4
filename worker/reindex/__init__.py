"""Rebuilds users' vectors."""
