"""Users, their passwords and logins."""
