"""The console's data: operations on many prompts, and the worker hosts."""
