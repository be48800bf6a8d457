#!/usr/bin/env python
"""Convert a checkpoint with proof; arguments are those of `cgh-bench convert` (see its --help).

python tools/convert.py moco_v2_800ep.pth.tar --to mmdet -o moco_v2.pth
"""

import sys

from cgh_bench.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "convert")
    main()
