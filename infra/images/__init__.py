"""`make images`: build both images without a registry, and run a prompt through them."""
