"""`make images`: builds both images for real where there is no registry, and has them answer a prompt."""
