"""A service of the design that Promptwire replaces: Django, DRF, Channels and daphne with their defaults.

It answers within the request: it embeds the prompt, saves it, adds it to one FAISS index of all users' prompts in this
process, and sends the answer to the user's sockets through Channels' in-memory layer. A search takes the nearest
prompts of all users, then drops those of other users.

Left out: registration, and lists of prompts. Rate limits are checked, but generous. The index has a lock, which that
design lacks: without one, concurrent prompts crash the process ("double free").
"""
