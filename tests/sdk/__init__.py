"""Calls of OpenAI's SDKs, which `tests/e2e/test_openai_sdks.py` runs: Python in `*_calls.py`, Node in `*.mjs`."""
