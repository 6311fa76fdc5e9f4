"""Finding a user's own prompts by meaning: a log of vectors in Postgres, and FAISS replicas that follow it."""

import os

# FAISS reads this when it is loaded. One thread a query is the faster way to serve many, and OpenMP's own do not
# survive a fork. (`faiss.omp_set_num_threads` would only hold for the thread that calls it.)
os.environ.setdefault("OMP_NUM_THREADS", "1")
