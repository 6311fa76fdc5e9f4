"""Reading `/metrics`."""

import httpx
from prometheus_client.parser import text_string_to_metric_families


def samples(text: str) -> dict[str, float]:
    """The samples by name and sorted labels, as in `promptwire_prompts{status="queued"}`."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def read(url: str) -> dict[str, float]:
    return samples(httpx.get(f"{url}/metrics").raise_for_status().text)
