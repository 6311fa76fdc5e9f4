"""Faults while hundreds of prompts are answered at a time by a remote model, in the threads of worker hosts."""
