"""Everything that evaluates frozen features or maps, and fine-tuning, on a small network of each form."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import dense_folder
import miniatures
import pytest
import torch
import transformers
from toy_images import toy_data

import cgh_bench
from cgh_bench import outcomes
from cgh_bench.backbones.base import Architecture
from cgh_bench.backbones.timm import Timm
from cgh_bench.checkpoint import Checkpoint, Origin, Preprocessing, random_checkpoint
from cgh_bench.data import load_related
from cgh_bench.data.demo.moving import VideoSettings, animal_videos
from cgh_bench.data.demo.scenes import write_scenes
from cgh_bench.data.demo.warped import WarpSettings, animal_pairs
from cgh_bench.data.segmented import load_segmented
from cgh_bench.data.transform import Crop, EvalTransform
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.correspondence import Correspondence
from cgh_bench.tasks.discovery import Discovery
from cgh_bench.tasks.incontext import InContext
from cgh_bench.tasks.tracking import Tracking

TASKS: dict[str, dict[str, Any]] = {
    "knn": {"k": 3, "k_grid": (1, 3)},
    "linear": {"weight_decays": (1e-3,), "held_out": 0.2},
    "linear_sgd": {"learning_rates": (0.1,), "held_out": 0, "epochs": 1, "crop": Crop(32)},
    "animals_svm": {"costs": (1.0,), "shots": (2,), "shot_costs": (1.0,), "repeats": 1},
    "clusters": {"starts": 1, "iterations": 5},
    "logistic": {},
    "finetune": {"epochs": 1, "batch_size": 8, "crop": Crop(32)},
}
SMALL: dict[str, Architecture] = {
    "convnext": Timm("convnext_atto", (("depths", (1, 1, 1, 1)), ("dims", (8, 8, 16, 16)))),
    "swin": Timm(
        "swin_tiny_patch4_window7_224",
        (("img_size", 32), ("window_size", 4), ("embed_dim", 8), ("depths", (1, 1)), ("num_heads", (1, 2))),
    ),
    "registers": Timm(
        "vit_small_patch14_reg4_dinov2",
        (("img_size", 32), ("patch_size", 8), ("embed_dim", 16), ("depth", 2), ("num_heads", 2)),
    ),
}


def small(kind: str, folder: Path) -> Checkpoint:
    torch.manual_seed(0)
    if kind == "resnet":
        return random_checkpoint("resnet18")
    if kind in SMALL:
        weights = SMALL[kind].build().state_dict()
        return Checkpoint(kind, SMALL[kind], weights, Preprocessing(), Origin("test"))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    model = transformers.AutoModel.from_config(transformers.Dinov2WithRegistersConfig(**sizes))
    model.save_pretrained(folder)
    return cgh_bench.load(folder)


@pytest.mark.parametrize("kind", [*SMALL, "folder"])
def test_every_task(kind: str, tmp_path: Path) -> None:
    checkpoint = small(kind, tmp_path / "hub")
    for task, settings in TASKS.items():
        found = cgh_bench.evaluate(
            checkpoint, task, toy_data(), work=tmp_path / "work", transform=EvalTransform(32, 32), **settings
        )
        assert all(0 <= value <= 100 for value in found.metrics.values()), (task, found.metrics)
        assert found.checkpoint == checkpoint.id


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, Any]]:
    """Tasks on maps with little data for each: made videos and DAVIS' and VOC's layout of them and of the scenes."""
    root = tmp_path_factory.mktemp("maps")
    videos = animal_videos(VideoSettings(videos=1, frames=4, side=64, most_animals=2, length=(24, 30)))
    miniatures.davis(videos, root)
    scenes = replace(miniatures.TINY, train_scenes=2, val_scenes=1, side=90)
    miniatures.voc(write_scenes(root / "scenes", scenes), root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CGH_DATA", str(root))
        lost = Discovery("voc0712")
        return [
            (Tracking("animal_videos", short=64), videos),
            (Tracking("davis2017", short=64), load_related("davis2017", "video")),
            (lost, lost.load_data(root)),
            (Correspondence("animal_pairs", size=64), animal_pairs(WarpSettings(pairs=2, side=64, points=3))),
            (InContext("squares", size=64, k=5), load_segmented(str(dense_folder.write(root / "squares", 3, 1)), root)),
        ]


@pytest.mark.parametrize("kind", ["resnet", *SMALL, "folder"])
def test_every_task_on_maps(kind: str, maps: list[tuple[Any, Any]], tmp_path: Path) -> None:
    checkpoint = small(kind, tmp_path / "hub")
    for number, (task, data) in enumerate(maps):
        folders = Folders(tmp_path / str(number), tmp_path / "cache")
        folders.run.mkdir()
        found = task.run(checkpoint, data, folders, 0)
        assert all(0 <= value <= 100 for value in found.values()) and set(found) >= {m.name for m in task.METRICS}, task
        assert outcomes.load(folders.run).metrics() == pytest.approx(found), task
