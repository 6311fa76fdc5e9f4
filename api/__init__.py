"""The API: REST and WebSockets on one port."""
