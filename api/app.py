"""The application's factory."""

from flask import Flask
from flask_cors import CORS
from werkzeug.middleware.proxy_fix import ProxyFix

from api import errors, requests, tokens, traces
from api.description.document import DescribedApi
from api.doorkeeper import Doorkeeper
from api.requests import Json
from api.routes import auth, docs, following, ops, page, prompts, search, stream
from api.services import Services, attach, make_services
from shared.settings import Settings

_REQUEST_HEADERS = [
    "Authorization",
    "Cache-Control",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Last-Event-ID",
    "Prefer",
    "X-Request-ID",
]
_RESPONSE_HEADERS = [
    "Cache-Status", "ETag", "Idempotency-Replayed", "Link", "Location", "Preference-Applied", "RateLimit",
    "RateLimit-Policy", "Retry-After", "X-Request-ID",
]  # fmt: skip


def create_app(settings: Settings, made: Services | None = None) -> Flask:
    """The Flask application. It listens for announcements once its services' `relay.start()` was called."""
    app = DescribedApi("api", validation_error_callback=errors.invalid, static_folder=None)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.json = Json(app)
    # Flask would ask of each function, in each request, whether it is a coroutine; here none is.
    app.ensure_sync = lambda function: function  # type: ignore[assignment, method-assign]

    services = made or make_services(settings)
    attach(app.extensions, services)
    requests.init_app(app)
    traces.init_app(app)
    errors.init_app(app)
    tokens.init_app(app, settings)
    services.limits.init_app(app)

    for blueprint in (auth.bp, prompts.bp, following.bp, search.bp, ops.bp):
        app.register_api(blueprint)
    for plain in (stream.bp, docs.bp, page.bp):
        app.register_blueprint(plain)

    if settings.allowed_origins:
        CORS(
            app,
            origins=list(settings.allowed_origins),
            allow_headers=_REQUEST_HEADERS,
            expose_headers=_RESPONSE_HEADERS,
            max_age=600,
        )
    app.wsgi_app = Doorkeeper(app.wsgi_app, lambda: services.submissions.is_overloaded)  # type: ignore[method-assign]
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    return app
