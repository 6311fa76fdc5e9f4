"""Search in a user's own prompts by meaning: a vector log in Postgres, and the stores that are derived from it."""

import os

# FAISS reads this when it is loaded. One thread per query serves many queries fastest, and OpenMP's threads do not
# survive a fork. (`faiss.omp_set_num_threads` applies only to the thread that calls it.)
os.environ.setdefault("OMP_NUM_THREADS", "1")
