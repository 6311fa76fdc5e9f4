"""The peer's routes."""

import logging

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import UserRateThrottle
from rest_framework.views import APIView

from shared.providers.simulated import SimulatedGenerator
from tests.benchmarks.peers.original.prompts.consumers import group_of
from tests.benchmarks.peers.original.prompts.index import embed, index
from tests.benchmarks.peers.original.prompts.models import Prompt

logger = logging.getLogger(__name__)

LIMIT = 5

_generator = SimulatedGenerator()


class BurstThrottle(UserRateThrottle):
    scope = "burst"


class SustainedThrottle(UserRateThrottle):
    scope = "sustained"


class SubmissionSerializer(serializers.Serializer):
    """A submission."""

    prompt_text = serializers.CharField(max_length=10_000)
    websocket = serializers.BooleanField(default=False)


class PromptSerializer(serializers.ModelSerializer):
    """A prompt and its answer."""

    user = serializers.CharField(source="user.username")

    class Meta:
        model = Prompt
        fields = ("id", "user", "prompt_text", "response_text", "created_at")


class SimilarPromptSerializer(PromptSerializer):
    """A prompt and its squared L2 distance to the query."""

    similarity_score = serializers.FloatField()

    class Meta(PromptSerializer.Meta):
        fields = ("id", "user", "prompt_text", "response_text", "similarity_score", "created_at")


class PromptsView(APIView):
    """Answers a prompt within the request."""

    throttle_classes = [BurstThrottle, SustainedThrottle]

    def post(self, request: Request) -> Response:
        submission = SubmissionSerializer(data=request.data)
        submission.is_valid(raise_exception=True)
        text = submission.validated_data["prompt_text"]
        vector = embed(text)
        index.fill()
        prompt = Prompt.objects.create(
            user=request.user,
            prompt_text=text,
            response_text=_generator.answer(text),
            embedding=vector.tolist(),
        )
        index.add(prompt.id, vector)
        answer = PromptSerializer(prompt).data
        if submission.validated_data["websocket"]:
            event = {"type": "prompt.completed", "prompt": answer}
            async_to_sync(get_channel_layer().group_send)(group_of(request.user.username), event)
        logger.info("Prompt %d of user %s completed", prompt.id, request.user.id)
        return Response(answer, status=status.HTTP_201_CREATED)


class SimilarPromptsView(APIView):
    """Returns those of the five nearest prompts of all users that belong to the caller."""

    def get(self, request: Request) -> Response:
        text = request.query_params.get("prompt", "")
        scores = index.search(embed(text), LIMIT)
        prompts = list(Prompt.objects.filter(id__in=list(scores), user=request.user).select_related("user"))
        for prompt in prompts:
            prompt.similarity_score = scores[prompt.id]
        prompts.sort(key=lambda prompt: prompt.similarity_score)
        logger.info("%d similar prompts found for user %s", len(prompts), request.user.id)
        return Response(SimilarPromptSerializer(prompts, many=True).data)
