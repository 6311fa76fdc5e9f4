"""What the API and the workers share: the data model, the lifecycle of a prompt, the feed, search, providers."""
