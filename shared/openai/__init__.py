"""OpenAI's API without HTTP: its requests as prompts, and prompts as its resources. The API and workers use it."""
