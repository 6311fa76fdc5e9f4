"""The workers: Celery tasks that answer prompts, and the reaper that hands out what was left behind."""
