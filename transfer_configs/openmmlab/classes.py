"""Classes of a COCO file by their names."""

from collections.abc import Sequence
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO


def ids_of(categories: Sequence[dict[str, Any]], names: Sequence[str]) -> list[int]:
    """The ids of the named classes, in the order of the names."""
    known = {category["name"]: category["id"] for category in categories}
    return [known[name] for name in names if name in known]


class ByName(COCO):
    """That of mmdetection gives the ids in the order of the file, so that train and val must have the same."""

    def get_cat_ids(self, cat_names: Any = (), sup_names: Any = (), cat_ids: Any = ()) -> list[int]:
        """The ids of the classes `cat_names`, in their order."""
        if cat_names:
            return ids_of(self.dataset["categories"], cat_names)
        return super().get_cat_ids(cat_names, sup_names, cat_ids)


CocoDataset.COCOAPI = ByName
