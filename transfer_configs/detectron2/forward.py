"""Build detectron2's own backbone from converted weights and record its outputs, for conversion certificates.

The weights are loaded as a user would: by `DetectionCheckpointer` into a GeneralizedRCNN. `--images` is a uint8 tensor
(B, 3, H, W), RGB; `--out` gets {"stages": {"input", "layer1", …: tensor}, "report": JSON}.
"""

import json
import pickle
import time
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import GeneralizedRCNN, build_backbone

from cgh_bench.transfer_configs import STARTED
from cgh_bench.transfer_configs.contract import arrival, processes


def main() -> None:
    """Build, run, write."""
    options = processes.forward_options(__doc__, "detectron2")
    imported = time.monotonic()
    config = get_cfg()
    config.merge_from_file(str(options.fragment))
    config.MODEL.DEVICE = "cpu"
    config.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    detector = GeneralizedRCNN(
        backbone=build_backbone(config),
        proposal_generator=torch.nn.Identity(),
        roi_heads=torch.nn.Identity(),
        pixel_mean=config.MODEL.PIXEL_MEAN,
        pixel_std=config.MODEL.PIXEL_STD,
        input_format=config.INPUT.FORMAT,
    ).eval()
    DetectionCheckpointer(detector).load(str(options.weights))
    images = torch.load(options.images, weights_only=True)
    if config.INPUT.FORMAT == "BGR":
        images = images.flip(1)
    with torch.inference_mode():
        prepared = detector.preprocess_image([{"image": image} for image in images]).tensor
        outputs = detector.backbone(prepared)
    stages = {"input": prepared, **{f"layer{number}": outputs[f"res{number + 1}"] for number in range(1, 5)}}
    report = {
        "network": f"{type(detector.backbone).__module__}.{type(detector.backbone).__name__}",
        "versions": {"detectron2": detectron2.__version__, "torch": torch.__version__},
        "seconds_of_import": imported - STARTED,
        **arrival.coverage(_model(options.weights), detector.backbone.state_dict()),
    }
    torch.save({"stages": stages, "report": json.dumps(report)}, options.out)


def _model(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file that `cgh-bench convert` has just written."""
    if path.suffix == ".pkl":
        with path.open("rb") as file:
            arrays: dict[str, Any] = pickle.load(file)["model"]
        return {name: torch.from_numpy(array) for name, array in arrays.items()}
    return torch.load(path, weights_only=True)["model"]


if __name__ == "__main__":
    main()
