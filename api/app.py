"""The application's factory."""

from flask import Flask
from flask_cors import CORS
from werkzeug.middleware.proxy_fix import ProxyFix

from api.auth import tokens
from api.http import problems, requests, tracing
from api.http.openapi.document import DescribedApi
from api.http.requests import Json
from api.intake.load_shedding import LoadShedder
from api.routes import auth, docs, ops, page, prompts, rooms, search, text_stream
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
    app = DescribedApi("api", validation_error_callback=problems.invalid, static_folder=None)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.json = Json(app)
    # Flask would ask of each function, in each request, whether it is a coroutine; here none is.
    app.ensure_sync = lambda function: function  # type: ignore[assignment, method-assign]

    services = made or make_services(settings)
    attach(app.extensions, services)
    requests.init_app(app)
    tracing.init_app(app)
    problems.init_app(app)
    tokens.init_app(app, settings)
    services.limits.init_app(app)

    for blueprint in (auth.bp, prompts.bp, text_stream.bp, search.bp, ops.bp):
        app.register_api(blueprint)
    for plain in (rooms.bp, docs.bp, page.bp):
        app.register_blueprint(plain)

    if settings.allowed_origins:
        CORS(
            app,
            origins=list(settings.allowed_origins),
            allow_headers=_REQUEST_HEADERS,
            expose_headers=_RESPONSE_HEADERS,
            max_age=600,
        )
    app.wsgi_app = LoadShedder(app.wsgi_app, lambda: services.submissions.is_overloaded)  # type: ignore[method-assign]
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    return app
