"""Random scaling relative to the image's own size."""

from typing import Any

from mmcv.transforms import RandomResize
from mmseg.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomResizeOfOwnSize(RandomResize):
    """`RandomResize` of mmcv scales relative to one fixed size; this scales relative to the size of each image.

    Args:
        ratio_range: the smallest and the largest factor; drawn uniformly.
    """

    def __init__(self, ratio_range: tuple[float, float]) -> None:
        super().__init__(scale=(1, 1), ratio_range=ratio_range, keep_ratio=True)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize the image and its segmentation map."""
        self.scale = results["img"].shape[1::-1]
        return super().transform(results)
