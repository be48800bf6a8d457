"""Images and class maps of the user's own, listed one by one: their folders and suffixes are free."""

from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS


@DATASETS.register_module()
class OwnMaps(BaseSegDataset):
    """A dataset of `pairs` (image, map).

    Args:
        pairs: paths.
    """

    def __init__(self, pairs: list[tuple[str, str]], **options: Any) -> None:
        self.pairs = pairs
        super().__init__(**options)

    def load_data_list(self) -> list[dict[str, Any]]:
        """What mmsegmentation's transforms start from."""
        same = {"label_map": self.label_map, "reduce_zero_label": self.reduce_zero_label}
        return [{"img_path": image, "seg_map_path": path, "seg_fields": [], **same} for image, path in self.pairs]
