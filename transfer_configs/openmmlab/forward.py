"""Build the framework's own backbone from converted weights and record its outputs, for conversion certificates.

The weights are loaded as a user would: by `init_cfg` in the fragment. `--images` is a uint8 tensor (B, 3, H, W), RGB;
`--out` gets {"stages": {"input", "layer1", …: tensor}, "report": JSON}.
"""

import importlib
import json
import time

import mmcv
import mmengine
import torch
from mmengine.config import Config

from cgh_bench.transfer_configs import STARTED
from cgh_bench.transfer_configs.contract import arrival, processes


def main() -> None:
    """Build, run, write."""
    options = processes.forward_options(__doc__, "mmdet", "mmseg")
    framework = importlib.import_module(options.framework)
    importlib.import_module(f"{options.framework}.models")
    registry = importlib.import_module(f"{options.framework}.registry").MODELS
    imported = time.monotonic()
    config = Config.fromfile(options.fragment)
    network = registry.build(config.model.backbone)
    network.init_weights()
    network.eval()
    preprocessor = registry.build(config.model.data_preprocessor)
    images = torch.load(options.images, weights_only=True).flip(1)  # BGR, as OpenMMLab loads them
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


if __name__ == "__main__":
    main()
