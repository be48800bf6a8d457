#!/usr/bin/env python
"""Detection and segmentation with a checkpoint; arguments are those of `cgh-bench eval` (see its --help).

python tools/transfer.py --task coco_det --ckpt moco_v2_800ep.pth.tar
"""

import sys

from cgh_bench.cli import main

if __name__ == "__main__":
    # `eval` takes the task by its place: the option becomes an argument.
    arguments = [argument.removeprefix("--task=") for argument in sys.argv[1:] if argument != "--task"]
    sys.argv[1:] = ["eval", *arguments]
    main()
