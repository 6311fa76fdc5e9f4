"""Periodic jobs of every worker host: rescue overdue prompts, delete expired rows."""
