"""Build the framework's own backbone from converted weights and record what it computes; for conversion certificates.

Run by path, in a process of its own and maybe in another environment; it needs mmengine, not the package around it:

    python forward.py --framework mmdet --weights W.pth --fragment W.pth.config.py --images I.pt --out O.pt

The weights get in as a user's would: by the fragment's `init_cfg`. `I.pt` is a uint8 tensor (B, 3, H, W), RGB; `O.pt`
gets {"stages": {"input", "layer1", …: tensor}, "report": JSON}.
"""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

STARTED = time.monotonic()

sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "contract"))

import ops  # noqa: E402 (its import is timed)

ops.install()

import arrival  # noqa: E402 (mmcv's operators must be there first)
import mmcv  # noqa: E402
import mmengine  # noqa: E402
import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402


def main() -> None:
    """Build, run, write."""
    options = _parse()
    framework = importlib.import_module(options.framework)
    importlib.import_module(f"{options.framework}.models")
    registry = importlib.import_module(f"{options.framework}.registry").MODELS
    imported = time.monotonic()
    config = Config.fromfile(options.fragment)
    network = registry.build(config.model.backbone)
    network.init_weights()
    network.eval()
    preprocessor = registry.build(config.model.data_preprocessor)
    images = torch.load(options.images, weights_only=True).flip(1)  # as OpenMMLab loads them: BGR
    with torch.inference_mode():
        prepared = preprocessor({"inputs": list(images)}, training=False)["inputs"]
        outputs = network(prepared)
    stages = {"input": prepared, **{f"layer{number}": output for number, output in enumerate(outputs, 1)}}
    report = {
        "network": f"{type(network).__module__}.{type(network).__name__}",
        "versions": {m.__name__: m.__version__ for m in (framework, mmcv, mmengine, torch)},
        "seconds_of_import": imported - STARTED,
        **arrival.coverage(torch.load(options.weights, weights_only=True), network.state_dict()),
    }
    torch.save({"stages": stages, "report": json.dumps(report)}, options.out)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", choices=("mmdet", "mmseg"), required=True)
    for name in ("weights", "fragment", "images", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
