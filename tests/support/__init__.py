"""What the tests share: servers, databases, clients."""
