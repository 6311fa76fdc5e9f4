"""VECTOR_STORE=faiss: replicas in memory, and the segments they are loaded from."""
