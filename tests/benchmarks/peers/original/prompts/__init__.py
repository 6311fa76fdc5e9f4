"""The peer's one application."""
