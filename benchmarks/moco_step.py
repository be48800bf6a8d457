"""A whole MoCo v2 step against lightly's: images/s at equal settings.

    pip install --no-deps lightly==1.6.0 lightly-utils
    python benchmarks/moco_step.py

ResNet-18 and ResNet-50, both with momentum twin, shuffled batch, MLP head, queue of 65,536 × 128, InfoNCE and SGD, on
the same random views; lightly's step is the one of its documentation (examples/pytorch/moco.py), ours the training
loop's, with one BatchNorm group. One thread; rounds of both take turns, and the least processor time of each counts.
Saves `results/moco_step.json`.
"""

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torchvision
from torch import nn

from cgh_bench.backbones.resnet import ResNet
from cgh_bench.data.image_set import GreyImages
from cgh_bench.pretrain.batches import Batch, Batches
from cgh_bench.pretrain.folder import RunFolder
from cgh_bench.pretrain.methods.moco_v2 import MocoV2
from cgh_bench.pretrain.recipe import find
from cgh_bench.pretrain.run import begin, descend

BATCH, QUEUE, DIM, THREADS, ROUNDS = 32, 65_536, 128, 1, 3
CASES = (("resnet18", 64), ("resnet18", 128), ("resnet18", 224), ("resnet50", 128))


def main() -> None:
    """Measure and write it down."""
    torch.set_num_threads(THREADS)
    measured = {}
    for architecture, size in CASES:
        views = [torch.rand(BATCH, 3, size, size) for _ in range(2)]
        seconds = best({"ours": ours(architecture, views), "lightly": lightlys(architecture, views)})
        measured[f"{architecture} {size}"] = {
            "images_per_processor_second": {name: round(BATCH / value, 2) for name, value in seconds.items()},
            "ratio": round(seconds["lightly"] / seconds["ours"], 3),
        }
    document = {
        "command": "python benchmarks/moco_step.py",
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
        "measured": measured,
        "wanted": 1.15,
    }
    out = Path(__file__).parent / "results" / "moco_step.json"
    out.write_text(json.dumps(document, indent=1) + "\n")
    print(out.read_text())


def ours(architecture: str, views: list[torch.Tensor]) -> Callable[[], None]:
    """The loop's step."""
    method = MocoV2(dim=DIM, hidden=512, queue_length=QUEUE, bn_groups=1)
    recipe = replace(find("moco_v2_r18_animals"), method=method, optimizer="sgd", batch_size=BATCH)
    recipe = replace(recipe, architecture=ResNet(architecture))
    nothing = torch.zeros(BATCH, dtype=torch.int64)
    images = GreyImages("none", ("none",), nothing.numpy(), "0" * 16, nothing[:, None, None].byte().numpy())
    run = begin(recipe, RunFolder(Path(tempfile.mkdtemp())), torch.device("cpu"), Batches(recipe, images))
    return lambda: void(descend(run, Batch(views, nothing, [])))


def void(_: object) -> None:
    """Nothing."""


class Lightly(nn.Module):
    """The model of lightly's example, its head at our width."""

    def __init__(self, architecture: str) -> None:
        super().__init__()
        from lightly.models.modules import MoCoProjectionHead
        from lightly.models.utils import deactivate_requires_grad

        network = torchvision.models.get_model(architecture)
        self.backbone = nn.Sequential(*list(network.children())[:-1])
        self.projection_head = MoCoProjectionHead(network.fc.in_features, 512, DIM)
        import copy

        self.backbone_momentum, self.projection_head_momentum = (
            copy.deepcopy(self.backbone),
            copy.deepcopy(self.projection_head),
        )
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The query."""
        return self.projection_head(self.backbone(x).flatten(start_dim=1))  # type: ignore[no-any-return]

    def forward_momentum(self, x: torch.Tensor) -> torch.Tensor:
        """The key."""
        return self.projection_head_momentum(self.backbone_momentum(x).flatten(start_dim=1)).detach()  # type: ignore[no-any-return]


def lightlys(architecture: str, views: list[torch.Tensor]) -> Callable[[], None]:
    """The step of lightly's example, with the shuffle of its benchmark, and normalised like ours."""
    from lightly.loss import NTXentLoss
    from lightly.models.utils import batch_shuffle, batch_unshuffle, update_momentum
    from torchvision.transforms.functional import normalize

    model, criterion = Lightly(architecture).train(), NTXentLoss(temperature=0.2, memory_bank_size=(QUEUE, DIM))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.006, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        x_key, x_query = (normalize(view, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) for view in views)
        update_momentum(model.backbone, model.backbone_momentum, m=0.999)
        update_momentum(model.projection_head, model.projection_head_momentum, m=0.999)
        query = model(x_query)
        shuffled, order = batch_shuffle(x_key)
        key = batch_unshuffle(model.forward_momentum(shuffled), order)
        loss = criterion(query, key)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def best(steps: dict[str, Callable[[], None]]) -> dict[str, float]:
    """The least seconds of each, after a round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            seconds[name].append(time.process_time() - start)
    return {name: min(values[1:]) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
