"""One thread for each test process: `make test` runs one process a core, and sums in one order only are bit for bit."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
