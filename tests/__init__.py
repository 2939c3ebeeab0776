"""The tests; this is imported before any of them, and before NumPy."""

import os

# Our matrices are small: shared by a thread a core they take five times as long where the cores are busy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
