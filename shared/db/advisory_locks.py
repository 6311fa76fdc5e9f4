"""The first keys of the advisory locks in PostgreSQL: what a lock is for. The second key is a user or a route."""

#: What is derived from a user's vector log, by the user's id (`shared/search/index_lock.py`).
INDEXES = 7_769
#: The slots of a route, by a hash of its name (`shared/prompts/concurrency.py`).
SLOTS = 7_770
#: Finishing prompts of a user, by a hash of the user's id (`shared/prompts/completion.py`).
FINISHES = 7_771
#: The turns and limits of a user, by a hash of the user's id (`shared/prompts/scheduling.py`).
TURNS = 7_772
