"""What worker hosts do besides answering prompts."""
