"""A service of the design that Promptwire replaces: Django, DRF, Channels and daphne, with what they do by default.

It answers within the request: embeds the prompt, saves it, adds it to one FAISS index of everybody's prompts in this
process, and sends the answer to the user's sockets through Channels' in-memory layer. Searches take the nearest of
all users' prompts, then drop those of others.

Left out: registration, and lists of prompts. Its limits are checked, but generous. The index has a lock, which that
design had not: without one, prompts that come at the same time end the process ("double free").
"""
