"""The names of an installation's Redis channels.

Redis has one set of channels for all of its databases, so the number of the database is a part of the names. Otherwise
two installations on one server would get each other's announcements. Database 0 has none, as before.
"""

from redis import Redis


class Channels:
    """The channels for the database of this client."""

    def __init__(self, redis: Redis) -> None:
        number = redis.get_connection_kwargs().get("db") or 0
        prefix = f"promptwire:{number}:" if number else "promptwire:"
        #: The channel of ended logins, to which every API process subscribes.
        self.logins = f"{prefix}logins"
        self._user_prefix = f"{prefix}user:"

    def of_user(self, user_id: int) -> str:
        """The channel of a user's announcements."""
        return f"{self._user_prefix}{user_id}"

    def user_id(self, name: str) -> int:
        """The id of the user whose channel this is."""
        return int(name.removeprefix(self._user_prefix))
