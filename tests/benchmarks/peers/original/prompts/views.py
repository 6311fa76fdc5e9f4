"""The peer's route."""

import logging

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from tests.benchmarks.peers.original.prompts.index import embed, index
from tests.benchmarks.peers.original.prompts.models import Prompt

logger = logging.getLogger(__name__)

LIMIT = 5


class SimilarPromptSerializer(serializers.ModelSerializer):
    """A prompt and its squared L2 distance to the query."""

    user = serializers.CharField(source="user.username")
    similarity_score = serializers.FloatField()

    class Meta:
        model = Prompt
        fields = ("id", "user", "prompt_text", "response_text", "similarity_score", "created_at")


class SimilarPromptsView(APIView):
    """The caller's among the five prompts of all users that are nearest."""

    def get(self, request: Request) -> Response:
        text = request.query_params.get("prompt", "")
        scores = index.search(embed(text), LIMIT)
        prompts = list(Prompt.objects.filter(id__in=list(scores), user=request.user).select_related("user"))
        for prompt in prompts:
            prompt.similarity_score = scores[prompt.id]
        prompts.sort(key=lambda prompt: prompt.similarity_score)
        logger.info("%d similar prompts found for user %s", len(prompts), request.user.id)
        return Response(SimilarPromptSerializer(prompts, many=True).data)
