"""Webhooks: endpoints of users, the events that are delivered to them, and the addresses that they may have."""
