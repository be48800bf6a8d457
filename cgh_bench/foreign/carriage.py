"""What a framework is given to carry a backbone of ours: its canonical file, and the source's stages on an image."""

from pathlib import Path

import torch

from cgh_bench.checkpoint import Checkpoint, save
from cgh_bench.core.files import replacing
from cgh_bench.reading.reference_script import probe_images
from cgh_bench.transfer_configs.contract.carried import require


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Write the canonical file to `path`, and `probe.pth` beside it; see `arrival.stage_differences`."""
    save(checkpoint, path)
    pixels = probe_images(*checkpoint.architecture.image_size)[:1]
    prepared = checkpoint.preprocessing(pixels.float() / 255)
    with torch.inference_mode():
        maps = checkpoint.backbone(copy=False).pyramid(prepared)
    used = require(checkpoint.architecture, "any", checkpoint.name).stages
    probe = {"pixels": pixels, "input": prepared, "stages": {stage: maps[stage].clone() for stage in used}}
    with replacing(path.with_name("probe.pth")) as temporary:
        torch.save(probe, temporary)
