"""`python -m cgh_bench` is the command `cgh-bench`."""

from cgh_bench.cli import main

main()
