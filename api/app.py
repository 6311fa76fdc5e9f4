"""The application factory."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from flask import Blueprint, Flask, Response
from flask_cors import CORS
from werkzeug.middleware.proxy_fix import ProxyFix

from api.auth.password_check import PasswordCheck
from api.auth.principal import Principal
from api.http import problems, requests, tracing
from api.http.export import PromptExport
from api.http.openapi.blueprint import Blueprint as ApiBlueprint
from api.http.openapi.document import DescribedApi
from api.http.public_address import PublicAddress
from api.http.requests import Json
from api.intake.endings import Endings
from api.intake.load_shedding import LOAD_SHEDDER, LoadShedder
from api.intake.submissions import Submissions
from api.openai import errors as openai_errors
from api.openai.batches import BatchRoutes
from api.openai.chat import ChatRoutes
from api.openai.embeddings import EmbeddingRoutes
from api.openai.files import FileRoutes
from api.openai.models import ModelRoutes
from api.openai.responses.routes import ResponseRoutes
from api.openai.responses.stream import InterruptedTexts, ResponseStream
from api.realtime.long_poll import LongPoll
from api.realtime.room_session import SocketSession
from api.realtime.text_stream import Position, StreamReads, TextStream
from api.routes import docs, error_pages
from api.routes.account import AccountRoutes
from api.routes.admin import AdminRoutes
from api.routes.auth import AuthRoutes
from api.routes.identities import IdentityRoutes
from api.routes.keys import KeyRoutes
from api.routes.oidc import OidcRoutes
from api.routes.operations import OperationRoutes
from api.routes.ops import OpsRoutes
from api.routes.page import PageRoutes
from api.routes.prompts import PromptRoutes
from api.routes.rooms import RoomRoutes
from api.routes.search import SearchRoutes
from api.routes.text_stream import TextStreamRoutes
from api.routes.usage import UsageRoutes
from api.routes.webhooks import WebhookRoutes
from api.services import Services, make_services
from shared.accounts import deletion
from shared.accounts.deletion import DeletedAccount
from shared.errors import OverloadedError
from shared.openai.response_resource import StoredResponse
from shared.settings import Settings

if TYPE_CHECKING:
    from api.auth.oidc.sign_in import SignIns

_REQUEST_HEADERS = [
    "Authorization",
    "Cache-Control",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Last-Event-ID",
    "Prefer",
    "X-Request-ID",
    # OpenAI's SDKs send these.
    "OpenAI-Organization",
    "OpenAI-Project",
    "X-Stainless-.*",
]
_RESPONSE_HEADERS = [
    "Cache-Status", "ETag", "Idempotency-Replayed", "Link", "Location", "Missing-Vectors", "OpenAI-Processing-Ms",
    "Preference-Applied", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-ID", "X-Should-Retry",
]  # fmt: skip


def create_app(settings: Settings, services: Services | None = None) -> Flask:
    """Make the Flask application. It gets announcements once `relay.start()` of its services was called."""
    services = services or make_services(settings)
    address = PublicAddress(settings)
    app = DescribedApi("api", address.prefix, validation_error_callback=problems.invalid, static_folder=None)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.json = Json(app)
    # Flask checks on each call whether a function is a coroutine; none is here.
    app.ensure_sync = lambda function: function  # type: ignore[assignment, method-assign]

    requests.init_app(app)
    tracing.init_app(app)
    address.init_app(app)
    problems.init_app(app, services.registration_limiter)
    error_pages.init_app(app)
    openai_errors.init_app(app)
    services.authenticator.init_app(app)
    services.registration_limiter.init_app(app)
    for api_blueprint in _api_blueprints(services):
        app.register_api(api_blueprint)
    page = PageRoutes(registration_open=settings.registration_open)
    for blueprint in (_rooms(services, address), docs.blueprint(), page.blueprint()):
        app.register_blueprint(blueprint)
    _add_middleware(app, settings, services.submissions, address)
    return app


def _api_blueprints(services: Services) -> list[ApiBlueprint]:
    """The blueprints whose routes are in the OpenAPI document, in its order."""
    s = services
    reads = StreamReads(s.autocommit_engine, s.db_slots, s.partial_text)
    shared = _ForPrompts(
        Endings(s.sessions, s.submissions, s.announcer),
        LongPoll(s.relay, s.autocommit_engine, s.user_limits.waits),
        partial(TextStream, s.relay, reads),
    )
    openai = [*_for_openai(s, shared), *_for_batches(s)]
    return [*_for_accounts(s), *_for_prompts(s, shared), *openai, *_for_operators(s)]


class _ForPrompts(NamedTuple):
    """What the native API and OpenAI's share."""

    endings: Endings
    long_poll: LongPoll
    text_stream: Callable[[Principal, int, Position], TextStream]


def _for_accounts(s: Services) -> Iterator[ApiBlueprint]:
    auth = AuthRoutes(
        s.sessions,
        s.authenticator,
        s.failed_logins,
        s.registration_limiter,
        registration_open=s.settings.registration_open,
    )
    account = AccountRoutes(
        s.settings,
        s.sessions,
        s.authenticator,
        PasswordCheck(s.sessions, s.failed_logins),
        PromptExport(s.autocommit_engine),
        s.user_limits.waits,
        _announce_deletion(s),
    )
    yield auth.blueprint()
    yield OidcRoutes(s.settings, _sign_ins(s), s.sign_in_limiter).blueprint()
    yield account.blueprint()
    yield IdentityRoutes(s.sessions, s.authenticator, PasswordCheck(s.sessions, s.failed_logins)).blueprint()
    yield KeyRoutes(s.sessions, s.authenticator, model_routes=s.settings.models).blueprint()
    yield UsageRoutes(s.authenticator, s.autocommit_engine, user_budget=s.settings.user_monthly_tokens).blueprint()


def _sign_ins(s: Services) -> "SignIns | None":
    if not s.settings.oidc_issuer:
        return None
    # httpx is slow to load, and only this needs it.
    from api.auth.oidc.provider import IdentityProvider
    from api.auth.oidc.sign_in import SignIns

    return SignIns(s.settings, s.sessions, s.authenticator, IdentityProvider(s.settings))


def _for_prompts(s: Services, shared: _ForPrompts) -> Iterator[ApiBlueprint]:
    prompts = PromptRoutes(
        settings=s.settings,
        engine=s.autocommit_engine,
        authenticator=s.authenticator,
        submissions=s.submissions,
        endings=shared.endings,
        long_poll=shared.long_poll,
    )
    text_stream = TextStreamRoutes(
        s.authenticator, s.autocommit_engine, s.db_slots, shared.text_stream, s.user_limits.waits
    )
    search = SearchRoutes(
        s.authenticator,
        s.search,
        s.autocommit_engine,
        slots=s.user_limits.searches,
        offload=s.search_threads.offload,
        max_page_bytes=s.settings.max_page_bytes,
    )
    yield prompts.blueprint()
    yield text_stream.blueprint()
    yield search.blueprint()
    yield WebhookRoutes(s.settings, s.sessions, s.authenticator).blueprint()


def _for_batches(s: Services) -> Iterator[ApiBlueprint]:
    yield FileRoutes(s.settings, s.sessions, s.autocommit_engine, s.authenticator).blueprint()
    yield BatchRoutes(s.settings, s.sessions, s.authenticator).blueprint()


def _for_openai(s: Services, shared: _ForPrompts) -> Iterator[ApiBlueprint]:
    settings, embedder = s.settings, s.embedders.current
    yield ChatRoutes(
        settings,
        s.autocommit_engine,
        s.authenticator,
        s.submissions,
        shared.endings,
        shared.long_poll,
        shared.text_stream,
        s.user_limits.waits,
    ).blueprint()
    yield ResponseRoutes(
        settings,
        s.autocommit_engine,
        s.authenticator,
        s.submissions,
        shared.endings,
        shared.long_poll,
        _response_streams(s, shared),
        s.user_limits.waits,
    ).blueprint()
    yield EmbeddingRoutes(
        s.sessions,
        s.authenticator,
        embedder,
        s.user_limits.searches,
        s.search_threads.offload,
        user_budget=settings.user_monthly_tokens,
    ).blueprint()
    yield ModelRoutes(s.authenticator, routes=list(settings.models), embedder=embedder.name).blueprint()


def _response_streams(s: Services, shared: _ForPrompts) -> Callable[[Principal, StoredResponse, int], ResponseStream]:
    interrupted = InterruptedTexts(s.autocommit_engine, s.db_slots, s.partial_text)

    def make(caller: Principal, response: StoredResponse, after: int) -> ResponseStream:
        return ResponseStream(response, shared.text_stream(caller, response.prompt.id, Position()), interrupted, after)

    return make


def _for_operators(s: Services) -> Iterator[ApiBlueprint]:
    yield AdminRoutes(s.sessions, s.autocommit_engine, s.authenticator, _announce_deletion(s)).blueprint()
    yield OperationRoutes(s.settings, s.sessions, s.autocommit_engine, s.authenticator, s.queue).blueprint()
    yield OpsRoutes(s.settings, s.dependency_checks, s.service_metrics).blueprint()


def _announce_deletion(s: Services) -> Callable[[DeletedAccount], None]:
    end_logins = s.authenticator.announce_logout
    return partial(deletion.announce, partial_text=s.partial_text, queue=s.queue, end_logins=end_logins)


def _rooms(services: Services, address: PublicAddress) -> Blueprint:
    s = services
    make_session = partial(SocketSession, s.relay, s.autocommit_engine, s.db_slots, s.user_limits.sockets)
    return RoomRoutes(s.settings, address, s.sessions, s.authenticator, s.db_slots, make_session).blueprint()


def _add_middleware(app: Flask, settings: Settings, submissions: Submissions, address: PublicAddress) -> None:
    if settings.allowed_origins:
        CORS(
            app,
            origins=list(settings.allowed_origins),
            allow_headers=_REQUEST_HEADERS,
            expose_headers=_RESPONSE_HEADERS,
            max_age=600,
        )
    shedder = LoadShedder(app.wsgi_app, lambda: submissions.is_overloaded, _refusals())
    app.extensions[LOAD_SHEDDER] = shedder
    app.wsgi_app = shedder  # type: ignore[method-assign]
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    app.wsgi_app = address.middleware(app.wsgi_app)  # type: ignore[assignment, method-assign]


def _refusals() -> dict[str, Response]:
    """What an overloaded service answers to submissions, by path."""
    in_openai_shape = openai_errors.in_openai_shape
    return {
        "/prompts": problems.from_error(OverloadedError()),
        **{
            f"/v1/{path}": in_openai_shape(problems.from_error(OverloadedError()))
            for path in ("chat/completions", "responses")
        },
    }
