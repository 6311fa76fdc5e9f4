"""What is common to all requests: problems, schemas, rate limits, tracing, the OpenAPI document."""
