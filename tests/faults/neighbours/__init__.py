"""What one client's attack costs its neighbours: attacks, each beside a user who behaves well."""
