"""OpenAI's API, below `/v1/`: its routes. `shared/openai/` translates its requests and renders its resources."""
