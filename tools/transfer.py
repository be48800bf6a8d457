#!/usr/bin/env python
"""Detection and segmentation with a checkpoint; arguments are those of `cgh-bench eval` (see its --help).

python tools/transfer.py --task coco_det --ckpt moco_v2_800ep.pth.tar
"""

import sys

from cgh_bench.cli import main

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if "--task" in arguments:  # `eval` takes the task by its place
        place = arguments.index("--task")
        arguments = [*arguments[place + 1 : place + 2], *arguments[:place], *arguments[place + 2 :]]
    sys.argv[1:] = ["eval", *arguments]
    main()
