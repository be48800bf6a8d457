"""Random scaling relative to the image's own size."""

from typing import Any

from mmcv.transforms import RandomResize
from mmseg.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomResizeOfOwnSize(RandomResize):
    """mmcv's `RandomResize` scales relative to one fixed size; this takes each image's own for it.

    Args:
        ratio_range: the least and the greatest factor; in between it is uniform.
    """

    def __init__(self, ratio_range: tuple[float, float]) -> None:
        super().__init__(scale=(1, 1), ratio_range=ratio_range, keep_ratio=True)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize image and map."""
        self.scale = results["img"].shape[1::-1]
        resized: dict[str, Any] = super().transform(results)
        return resized
