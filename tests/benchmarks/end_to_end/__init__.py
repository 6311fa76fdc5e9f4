"""`make bench`: prompts in over HTTP, answers out over WebSocket, ours beside what people would pick instead."""
