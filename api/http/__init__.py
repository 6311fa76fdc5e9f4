"""What all HTTP routes share: requests, errors, schemas, rate limits, traces, the OpenAPI document."""
