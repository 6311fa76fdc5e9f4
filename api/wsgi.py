"""The WSGI application: `gunicorn -c infra/gunicorn.conf.py api.wsgi:app`."""

import sys

from api.app import create_app
from api.services import gauges, make_services
from shared.search import replica_check
from shared.settings import SettingsError, load_settings
from shared.telemetry import tracing
from shared.telemetry.logs import configure_logging
from shared.telemetry.sampler import Sampler

try:
    settings = load_settings()
    configure_logging(settings)
    tracing.start(settings, "promptwire-api")
    services = make_services(settings)
except SettingsError as error:
    print(f"The API cannot start.\n{error}", file=sys.stderr)  # noqa: T201
    # gunicorn's exit code for a failed load: otherwise the master would restart its workers for ever.
    sys.exit(4)

services.relay.start()
Sampler(gauges(services), times_loop=True).start()
replica_check.start(services.store)
app = create_app(settings, services)
