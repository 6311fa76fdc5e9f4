"""Rebuilding users' vectors."""
