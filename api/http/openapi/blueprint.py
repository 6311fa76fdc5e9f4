"""flask-openapi3's blueprint, for views that are methods."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask_openapi3 import APIBlueprint


class Blueprint(APIBlueprint):
    """An APIBlueprint whose views may be bound methods. flask-openapi3 sets an attribute on each view."""

    @staticmethod
    def create_view_func(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        @wraps(func)
        def view(**variables: Any) -> Any:
            return func(**variables)

        return APIBlueprint.create_view_func(view, *args, **kwargs)
