"""LVIS v1's annotations: COCO's form, with what was looked for in each image and how frequent each class is.

Source: Gupta et al., LVIS (https://arxiv.org/abs/1908.03195), section 3; lvis-dataset/lvis-api.
"""

from collections.abc import Iterator
from typing import Any

Document = dict[str, list[dict[str, Any]]]
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
"""How frequent a class is: in at most 10, at most 100, or more training images."""
LISTED = ("neg_category_ids", "not_exhaustive_category_ids")
"""An image's classes that are certainly absent, and those of which not every object is annotated."""


def faults(document: Document, classes: Any, scored: bool) -> Iterator[str]:
    """What is wrong with the fields that COCO's form does not have; where it is `scored`, each frequency needs objects.

    detectron2 knows the classes by their ids, so that these are 1 to `classes`.
    """
    categories = document["categories"]
    if sorted(str(each.get("id")) for each in categories) != sorted(map(str, range(1, classes + 1))):
        yield f"has {len(categories)} categories; LVIS v1 has {classes}, with the ids 1 to {classes}"
    for each in categories:
        if str(each.get("frequency")) not in FREQUENCIES or not isinstance(each.get("name"), str):
            yield f"category {each.get('id')!r} has no name, or no frequency {', '.join(FREQUENCIES)}"
    for image in document["images"]:
        lists = [image.get(key) for key in LISTED]
        listed = all(isinstance(each, list) and all(isinstance(number, int) for number in each) for each in lists)
        if not isinstance(image.get("coco_url"), str) or not listed:
            yield f"image {image.get('id')!r} has no coco_url, or no {' or '.join(LISTED)}"
    for line in document["annotations"]:
        if not isinstance(line.get("segmentation"), list):
            yield f"annotation {line.get('id')!r} has no polygons"
    if scored:
        annotated = {str(line.get("category_id")) for line in document["annotations"]}
        there = {str(each.get("frequency")) for each in categories if str(each.get("id")) in annotated}
        if absent := [name for key, name in FREQUENCIES.items() if key not in there]:
            yield f"has no object of a {' or '.join(absent)} class, whose AP is reported"


def as_coco(document: Document) -> Document:
    """The document with COCO's fields: an image's name begins with its folder, and there are no crowds."""
    images = [{**image, "file_name": "/".join(image["coco_url"].split("/")[-2:])} for image in document["images"]]
    annotations = [{"iscrowd": 0, **line} for line in document["annotations"]]
    return {**document, "images": images, "annotations": annotations}
