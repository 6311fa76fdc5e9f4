"""`make up`: everything on one machine that has only Python, on real servers from pip wheels."""
