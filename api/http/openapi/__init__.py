"""How the API describes itself: OpenAPI 3.1 at /openapi.json, made from the code, and a page that shows it at /docs."""
