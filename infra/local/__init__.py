"""`make up`: the whole service on one machine that has only Python, with real servers from pip wheels."""
