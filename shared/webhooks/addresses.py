"""Which addresses webhooks may have."""

from urllib.parse import urlsplit

MAX_URL_CHARACTERS = 2_048


def check_url(url: str, *, allow_private: bool) -> None:
    """Raise ValueError, with a sentence for people, unless a webhook may have this URL."""
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_host = False
    if not has_host or len(url) > MAX_URL_CHARACTERS or len(url.split()) != 1:
        raise ValueError("This is not a URL; write it like https://hooks.example/promptwire.")
    if parts.scheme != "https" and not (allow_private and parts.scheme == "http"):
        raise ValueError("The URL must begin with https://.")
    if "@" in parts.netloc or parts.fragment:
        raise ValueError("The URL must have no user and no fragment.")
