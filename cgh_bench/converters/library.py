"""The process of a certificate of a library in our own environment (timm, transformers).

python -m cgh_bench.converters.library --converter timm --weights W --images I.pt --out O.pt --started T

`I.pt` is a uint8 tensor (B, 3, H, W), RGB; `O.pt` gets {"stages": {"input", …: tensor}, "report": JSON}.
"""

import argparse
import importlib
import json
import time
from dataclasses import fields
from pathlib import Path

import torch

from cgh_bench.converters.parity import Outputs


def main() -> None:
    """Build, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--converter", choices=("timm", "huggingface"), required=True)
    for name in ("weights", "images", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--started", type=float, required=True, help="when the process was, by the clock")
    options = parser.parse_args()
    seconds_before = time.time() - options.started
    network_outputs = importlib.import_module(f"cgh_bench.converters.{options.converter}").network_outputs
    found: Outputs = network_outputs(options.weights, torch.load(options.images, weights_only=True))
    report = {field.name: getattr(found, field.name) for field in fields(found) if field.name != "stages"}
    report["seconds_of_import"] += seconds_before
    torch.save({"stages": dict(found.stages), "report": json.dumps(report)}, options.out)


if __name__ == "__main__":
    main()
