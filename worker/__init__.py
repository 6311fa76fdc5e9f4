"""The workers: Celery tasks that answer prompts, and the maintenance that every worker host does."""
