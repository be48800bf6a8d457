"""The datasets below CGH_DATA under names of our own, and endless training batches."""

import functools
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog, get_detection_dataset_dicts, transforms
from detectron2.data.build import trivial_batch_collator, worker_init_reset_seed
from detectron2.data.common import DatasetFromList, MapDataset
from detectron2.data.datasets import load_coco_json, register_lvis_instances, register_pascal_voc
from detectron2.data.datasets.builtin_meta import COCO_PERSON_KEYPOINT_FLIP_MAP, COCO_PERSON_KEYPOINT_NAMES
from detectron2.data.datasets.lvis import get_lvis_instances_meta
from detectron2.data.detection_utils import build_augmentation
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Sampler

COCO_FORMAT = {
    "animal_scenes/train": ("animal_scenes/train/annotations.json", "animal_scenes/train/images"),
    "animal_scenes/val": ("animal_scenes/val/annotations.json", "animal_scenes/val/images"),
    "coco/train2017": ("coco/annotations/instances_train2017.json", "coco/train2017"),
    "coco/val2017": ("coco/annotations/instances_val2017.json", "coco/val2017"),
    **{
        f"coco_keypoints/{split}2017": (f"coco/annotations/person_keypoints_{split}2017.json", f"coco/{split}2017")
        for split in ("train", "val")
    },
    **{
        f"cityscapes/{split}": (
            f"cityscapes/annotations/instancesonly_filtered_gtFine_{split}.json",
            f"cityscapes/leftImg8bit/{split}",
        )
        for split in ("train", "val")
    },
}
VOC_FORMAT = {
    "voc/2007_trainval": ("VOCdevkit/VOC2007", "trainval", 2007),
    "voc/2012_trainval": ("VOCdevkit/VOC2012", "trainval", 2012),
    "voc/2007_test": ("VOCdevkit/VOC2007", "test", 2007),
}


def register() -> None:
    """Register the datasets with detectron2; nothing is read yet."""
    root = Path(os.environ.get("CGH_DATA", "data"))
    for name, (annotations, images) in COCO_FORMAT.items():
        _register_coco(name, str(root / annotations), str(root / images))
    MetadataCatalog.get("cityscapes/val").gt_dir = str(root.resolve() / "cityscapes/gtFine/val")
    for split in ("train", "val"):
        annotations, name = str(root / f"coco/annotations/lvis_v1_{split}.json"), f"lvis_v1/{split}"
        register_lvis_instances(name, get_lvis_instances_meta(name), annotations, f"{root}/coco/")
    for name, (folder, split, year) in VOC_FORMAT.items():
        register_pascal_voc(name, str(root / folder), split, year)


def put_own(config: CfgNode, file: Path) -> None:
    """Train and evaluate on the data that `file` describes (`cgh_bench.data.own`), by COCO's AP.

    Network, sizes, augmentation and schedule stay the protocol's.
    """
    told = json.loads(file.read_text(encoding="utf-8"))
    for split in ("train", "val"):
        _register_coco(f"own/{split}", told[split], told["images"])
    config.DATASETS.TRAIN, config.DATASETS.TEST = ("own/train",), ("own/val",)
    config.MODEL.ROI_HEADS.NUM_CLASSES = config.MODEL.RETINANET.NUM_CLASSES = len(told["classes"])
    if told["run_lengths"]:
        config.INPUT.MASK_FORMAT = "bitmask"


def _register_coco(name: str, annotations: str, images: str) -> None:
    DatasetCatalog.register(
        name, functools.partial(load_by_name, name, annotations, images, name.replace("/val", "/train"))
    )
    MetadataCatalog.get(name).set(
        json_file=annotations,
        image_root=images,
        evaluator_type="coco",
        keypoint_names=COCO_PERSON_KEYPOINT_NAMES,
        keypoint_flip_map=COCO_PERSON_KEYPOINT_FLIP_MAP,
    )


def load_by_name(name: str, annotations: str, images: str, first: str) -> list[dict[str, Any]]:
    """The images of a COCO file, with classes numbered as in the dataset `first`, which is trained on.

    detectron2 numbers the classes of each file by their ids there, so that val must have the ids of train.
    """
    filed = MetadataCatalog.get(f"{name}, as filed")
    found: list[dict[str, Any]] = load_coco_json(annotations, images, filed.name)
    classes = MetadataCatalog.get(first).get("thing_classes", filed.thing_classes)
    place = [classes.index(each) for each in filed.thing_classes]
    for annotation in itertools.chain.from_iterable(image["annotations"] for image in found):
        annotation["category_id"] = place[annotation["category_id"]]
    ids = {number: place[index] for number, index in filed.thing_dataset_id_to_contiguous_id.items()}
    MetadataCatalog.get(name).set(thing_classes=classes, thing_dataset_id_to_contiguous_id=ids)
    return found


class Batches(Sampler[list[int]]):
    """Endless batches of indices that never mix images that are `wide` (wider than high) with others.

    As detectron2's AspectRatioGroupedDataset, but for indices: a resumed run skips the `seen` batches without
    reading an image.
    """

    def __init__(self, indices: Sampler[int], wide: Sequence[bool], size: int, seen: int) -> None:
        self.indices, self.wide, self.size, self.seen = indices, wide, size, seen

    def __iter__(self) -> Iterator[list[int]]:
        return itertools.islice(self._all(), self.seen, None)

    def _all(self) -> Iterator[list[int]]:
        groups: dict[bool, list[int]] = {True: [], False: []}
        for index in self.indices:
            group = groups[self.wide[index]]
            group.append(index)
            if len(group) == self.size:
                yield list(group)
                group.clear()


def augmentations(config: CfgNode) -> list[Any]:
    """What is done to training images: detectron2's, or large-scale jitter as in its projects/ViTDet."""
    if side := config.TRANSFER.SCALE_JITTER:
        return [
            transforms.RandomFlip(),
            transforms.ResizeScale(0.1, 2.0, target_height=side, target_width=side),
            transforms.FixedSizeCrop((side, side), pad=False),
        ]
    return build_augmentation(config, is_train=True)


def training_batches(config: CfgNode, seed: int, seen: int) -> DataLoader[Any]:
    """The batches of one process after the first `seen`, each a list of mapped images; a seed always gives the same."""
    least = config.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if config.MODEL.KEYPOINT_ON else 0
    images = get_detection_dataset_dicts(
        config.DATASETS.TRAIN, filter_empty=config.DATALOADER.FILTER_EMPTY_ANNOTATIONS, min_keypoints=least
    )
    wide = [config.DATALOADER.ASPECT_RATIO_GROUPING and image["width"] > image["height"] for image in images]
    size = config.SOLVER.IMS_PER_BATCH // comm.get_world_size()
    cut = {"augmentations": augmentations(config), "recompute_boxes": True} if config.TRANSFER.SCALE_JITTER else {}
    mapper = DatasetMapper(config, is_train=True, **cut)
    return DataLoader(
        MapDataset(DatasetFromList(images, copy=False), mapper),
        batch_sampler=Batches(_sampler(config, images, seed), wide, size, seen),
        num_workers=config.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
        worker_init_fn=worker_init_reset_seed,
    )


def _sampler(config: CfgNode, images: list[dict[str, Any]], seed: int) -> Sampler[int]:
    """The indices of images in an endless random order; images of rare classes more often if the protocol says so."""
    given, sampler = config.DATALOADER, RepeatFactorTrainingSampler
    found: Sampler[int] = TrainingSampler(len(images), seed=seed)
    if given.SAMPLER_TRAIN != "TrainingSampler":
        often = sampler.repeat_factors_from_category_frequency(images, given.REPEAT_THRESHOLD, given.REPEAT_SQRT)
        found = sampler(often, seed=seed)
    return found
