"""VECTOR_STORE=faiss: replicas in memory, and the segments that they are loaded from."""
