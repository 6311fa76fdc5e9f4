"""Webhooks: endpoints of users, to which their events are sent."""
