"""Reads the errors that servers describe in JSON, in OpenAI's shape or in another one that servers use."""

from collections.abc import Iterator, Mapping
from typing import Any

#: In place of a status: the account's quota is used up. OpenAI sends 429 for that, although waiting does not help.
QUOTA = -1

#: The status that an error has by its name, which is compared in lower case without punctuation.
_STATUSES: Mapping[str, int] = {
    **dict.fromkeys(("insufficientquota", "insufficientbalance", "billinghardlimitreached", "quotaexceeded"), QUOTA),
    **dict.fromkeys(("invalidrequesterror", "badrequest", "badrequesterror", "invalidargument"), 400),
    **dict.fromkeys(("contextlengthexceeded", "contentpolicyviolation", "stringabovemaxlength"), 400),
    **dict.fromkeys(("exceedcontextsizeerror", "unsupportedparameter", "unsupportedvalue", "validationerror"), 400),
    **dict.fromkeys(("invalidapikey", "authenticationerror", "unauthorized", "unauthenticated"), 401),
    **dict.fromkeys(("permissionerror", "permissiondenied", "forbidden"), 403),
    **dict.fromkeys(("modelnotfound", "notfounderror", "notfound"), 404),
    **dict.fromkeys(("requesttoolarge", "payloadtoolarge"), 413),
    **dict.fromkeys(("ratelimitexceeded", "ratelimiterror", "ratelimit", "ratelimitreached"), 429),
    **dict.fromkeys(("toomanyrequests", "resourceexhausted", "throttlingexception", "throttled"), 429),
    **dict.fromkeys(("servererror", "internalservererror", "internalerror", "internal", "apierror"), 500),
    **dict.fromkeys(("badgateway",), 502),
    **dict.fromkeys(("serviceunavailable", "serviceunavailableerror", "unavailable", "unavailableerror"), 503),
    **dict.fromkeys(("overloaded", "overloadederror", "engineoverloaded", "engineoverloadederror"), 529),
    **dict.fromkeys(("timeout", "timeouterror", "deadlineexceeded", "gatewaytimeout"), 504),
}
_NUMBERS = ("code", "status", "status_code", "statusCode", "http_status", "httpStatus")
_NAMES = ("code", "type", "status", "reason")


def is_error(payload: Mapping[str, Any]) -> bool:
    """Whether a JSON object without choices describes a failure."""
    if payload.get("error") or payload.get("errors") or payload.get("object") == "error":
        return True
    if payload.get("type") == "error" or payload.get("detail"):
        return True
    answer = payload.get("base_resp")  # MiniMax
    if isinstance(answer, dict) and answer.get("status_code"):
        return True
    return ("message" in payload or "msg" in payload) and any(key in payload for key in (*_NUMBERS, "success"))


def effective_status(status: int, payload: Any) -> int:
    """Return the status that a failure should have had; QUOTA instead if that is the cause.

    A status other than 200 and 500 says enough by itself. If the payload says nothing, the status is returned.
    """
    objects = list(_objects(payload))
    named = [_STATUSES.get(_plain(each.get(key)), 0) for each in objects for key in _NAMES]
    if QUOTA in named and status in (200, 429, 403, 500):
        return QUOTA
    if status not in (200, 500):
        return status
    numbers = [number for each in objects for key in _NUMBERS if (number := _status(each.get(key)))]
    overload = [found for found in named if found in (429, 503, 529)]
    if status == 500 and "validation error" in find_message(payload):  # pydantic's, in llama.cpp's Python server
        return 400
    if status == 500:
        return (overload or [500])[0]
    return next((found for found in (*overload, *numbers, *named) if found), status)


def find_message(payload: Any) -> str:
    """Return the message of an error in one of the known shapes. HTML pages of proxies are ignored."""
    if isinstance(payload, str):
        return "" if payload.lstrip().startswith("<") else payload
    if isinstance(payload, list):
        return "; ".join(filter(None, map(find_message, payload)))
    if isinstance(payload, dict):
        for key in ("error", "errors", "message", "detail", "msg", "status_msg", "base_resp", "title"):
            if words := find_message(payload.get(key)):
                return words
    return ""


def find_parameter(payload: Any) -> str:
    """Return the name of the parameter that an error is about, as far as a field says so."""
    return next((each["param"] for each in _objects(payload) if isinstance(each.get("param"), str)), "")


def _objects(payload: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects that may have the fields of an error: inner ones first."""
    if isinstance(payload, dict):
        for key in ("error", "metadata", "base_resp", "detail"):
            yield from _objects(payload.get(key))
        yield payload


def _status(value: Any) -> int:
    try:
        number = int(value) if isinstance(value, int | str) else 0
    except ValueError:
        return 0
    return number if 400 <= number <= 599 else 0


def _plain(value: Any) -> str:
    return "".join(filter(str.isalnum, value)).lower() if isinstance(value, str) else ""
