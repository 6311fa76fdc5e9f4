"""`/v1/responses`: its routes, its schemas, and its streams."""
