"""What gunicorn loads: `gunicorn -c infra/gunicorn.conf.py api.wsgi:app`."""

import sys

from api.app import create_app
from api.services import make_services
from shared.logs import configure_logging
from shared.settings import SettingsError, load_settings

try:
    settings = load_settings()
except SettingsError as error:
    print(f"The API cannot start.\n{error}", file=sys.stderr)  # noqa: T201
    # gunicorn's code for "do not try again": without it, the master would restart its workers for ever.
    sys.exit(4)

configure_logging(settings)
services = make_services(settings)
services.relay.start()
app = create_app(settings, services)
