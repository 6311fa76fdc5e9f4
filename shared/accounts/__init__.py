"""Users, their passwords and their logins."""
