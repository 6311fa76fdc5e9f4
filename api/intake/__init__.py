"""How submissions are accepted: limits, backlog, group commit, load shedding."""
