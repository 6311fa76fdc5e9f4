"""The peer's URLs."""

from django.urls import path
from rest_framework_simplejwt.views import TokenObtainPairView

from tests.benchmarks.peers.original.prompts.consumers import PromptConsumer
from tests.benchmarks.peers.original.prompts.views import PromptsView, SimilarPromptsView

urlpatterns = [
    path("login/", TokenObtainPairView.as_view()),
    path("prompts/", PromptsView.as_view()),
    path("prompts/similar", SimilarPromptsView.as_view()),
]
websocket_urlpatterns = [path("ws/prompts/<username>/", PromptConsumer.as_asgi())]
