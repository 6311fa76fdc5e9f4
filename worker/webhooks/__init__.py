"""Delivering events to webhooks, in the main process of each worker host.

An asyncio loop in one thread talks to all endpoints; statements and name look-ups run in a few threads beside it.
"""
