"""Pushing to clients: the relay from Redis, WebSockets, streamed text, waiting requests."""
