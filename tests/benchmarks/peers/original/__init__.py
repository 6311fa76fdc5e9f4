"""A service of the design that Promptwire replaces: Django, and one global FAISS index over all users' prompts.

Only what searching needs, as that design has it: `GET /prompts/similar`, by daphne, with what it does by default.
"""
