"""What operators do from the console: operations on many prompts, and the worker hosts that they see."""
