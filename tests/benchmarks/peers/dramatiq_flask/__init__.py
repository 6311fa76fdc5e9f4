"""`one_task_each` with Dramatiq instead of Celery: its API and its statements, one message a prompt.

What is left out there is left out here. A message of a worker that was killed is delivered again after a minute.
"""
