"""The ledger: what the attempts of each user used, by day (UTC), API key and model route.

Whatever ends an attempt adds to it, in the same transaction. `prompts` has the same numbers for each prompt, so for all
prompts that were not deleted

    sum(prompts.used_prompt_tokens) = sum(usage.prompt_tokens), and so for the tokens of answers

Lock order: rows of the ledger come last, in the order of their keys.
"""


def add_to_ledger(source: str, *, at: str, prompts: int) -> str:
    """The SQL that adds the rows of `source` to the ledger, which have user_id, key_id, route and the fields of `Used`.

    `at` is the time when they ended, and each counts as so many `prompts`. What is NULL adds nothing.
    """
    return f"""
        INSERT INTO usage (user_id, day, key_id, route, prompts, prompt_tokens, completion_tokens, cost)
        SELECT user_id, CAST({at} AT TIME ZONE 'UTC' AS date) AS day, key_id, route, {prompts} * count(*),
            coalesce(sum(used_prompt_tokens), 0), coalesce(sum(used_completion_tokens), 0), coalesce(sum(cost), 0)
        FROM {source}
        GROUP BY user_id, day, key_id, route
        ORDER BY user_id, day, key_id, route
        ON CONFLICT (user_id, day, key_id, route) DO UPDATE SET
            prompts = usage.prompts + excluded.prompts,
            prompt_tokens = usage.prompt_tokens + excluded.prompt_tokens,
            completion_tokens = usage.completion_tokens + excluded.completion_tokens,
            cost = usage.cost + excluded.cost
    """  # noqa: S608  # nosec B608
