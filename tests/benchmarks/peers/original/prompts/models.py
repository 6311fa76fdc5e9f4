"""The peer's table."""

from django.contrib.auth.models import User
from django.db import models


class Prompt(models.Model):
    """A prompt, its answer, and its embedding: a JSON list of 384 floats."""

    user = models.ForeignKey(User, on_delete=models.CASCADE)
    prompt_text = models.TextField()
    response_text = models.TextField(blank=True)
    embedding = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "prompts"
