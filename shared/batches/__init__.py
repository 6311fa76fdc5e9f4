"""Files and batches: what users upload, the prompts that are made of it, and the files with their answers."""
