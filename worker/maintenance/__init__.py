"""What every worker host does besides answering prompts: rescue overdue prompts, delete what has expired."""
