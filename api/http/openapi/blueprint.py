"""flask-openapi3's blueprint, for views that are methods, described only when the document is asked for."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from flask_openapi3 import APIBlueprint


class Blueprint(APIBlueprint):
    """An APIBlueprint whose views may be bound methods. flask-openapi3 sets an attribute on each view.

    flask-openapi3 describes each view when it is added, which would be a third of the start of an API process. Here
    the descriptions wait for `describe`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._descriptions: list[Callable[[], object]] = []

    def describe(self) -> None:
        """Describe the views, in `paths`, `tags` and `components_schemas`."""
        while self._descriptions:
            self._descriptions.pop(0)()

    def _collect_openapi_info(self, rule: str, func: Callable[..., Any], **options: Any) -> Any:
        self._descriptions.append(partial(super()._collect_openapi_info, rule, func, **options))
        return super()._collect_openapi_info(rule, func, doc_ui=False)

    @staticmethod
    def create_view_func(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        @wraps(func)
        def view(**variables: Any) -> Any:
            return func(**variables)

        return APIBlueprint.create_view_func(view, *args, **kwargs)
