"""The command line, and the one place that wires everything."""

import os

# numpy's BLAS looks once, when it is loaded. Our matrices are small: with more threads on a busy machine they wait
# for one another, which made a step of novelty a hundred times slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
