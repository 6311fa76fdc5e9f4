"""What daphne serves: HTTP by Django (its sockets are not measured)."""

import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.benchmarks.peers.original.settings")
application = ProtocolTypeRouter({"http": get_asgi_application()})
