"""The service's promises under faults: scenarios against a running stack, counted from outside (`make faults`)."""
