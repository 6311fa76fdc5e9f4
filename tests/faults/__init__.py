"""What is promised while things die: scenarios against a whole running stack, counted from outside (`make faults`)."""
