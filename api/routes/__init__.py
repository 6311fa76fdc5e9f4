"""One module per resource: what a path takes, what it answers, and which function of the domain does the work."""
