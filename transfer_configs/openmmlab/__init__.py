"""Detection and segmentation in mmdetection and mmsegmentation, in a process of their own.

Importing this package makes both importable: mmcv gets its operators from torchvision if it has no compiled ones, and
mmpretrain, which mmdetection imports if it is installed, is hidden: it fails beside some versions of transformers.
"""

import sys

from cgh_bench.transfer_configs.openmmlab import ops

ops.install()
sys.modules["mmpretrain"] = None  # type: ignore[assignment]
