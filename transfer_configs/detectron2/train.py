"""Fine-tune a converted trunk under one protocol in detectron2, evaluate it, prove it arrived.

Run by path, in a process of its own and maybe in another environment; it needs detectron2, not the package around it:

    python train.py --config coco_det.yaml --weights trunk.pth --work DIR --seed 0 [--gpus N] [--resume] [--set K=V …]

Leaves in DIR: `metrics.json` {metric: value}; `loaded.json` (did every tensor arrive, and the preprocessing in force);
`versions.json`; `predictions.json`; `model.pth`, the fine-tuned weights. While it runs, `state.pth` is where
--resume goes on.
Standard output has one JSON object a line for progress, {"phase", "done", "of", "loss"}; all other lines are a log.
Exit codes: 0 done; 130 interrupted, state saved; anything else has failed.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "contract"))
warnings.simplefilter("ignore")  # detectron2 uses pkg_resources and old torch names

import data_sets  # noqa: E402 (the path must be there first)
import detectron2  # noqa: E402
import evaluation  # noqa: E402
import heads  # noqa: E402, F401 (registers them)
import parent  # noqa: E402
import processes  # noqa: E402
import protocol  # noqa: E402
import torch  # noqa: E402
import versions  # noqa: E402
from detectron2.utils import comm  # noqa: E402
from detectron2.utils.env import seed_all_rng  # noqa: E402
from detectron2.utils.logger import setup_logger  # noqa: E402
from keeping import write_text  # noqa: E402
from run import Run  # noqa: E402
from watch import Interrupted  # noqa: E402

MODULES = ("detectron2", "fvcore", "torch", "torchvision", "numpy", "PIL")
"""Whose versions are left in `versions.json`."""


def main() -> int:
    """Run; the exit code."""
    parent.follow()
    options = _parse()
    config = protocol.read(options.config, options.settings, options.gpus, options.iterations)
    at_a_time = protocol.images_at_a_time(config, max(1, options.gpus), options.images_at_a_time)
    if processes.must_launch(options.gpus):
        processes.launch(options.gpus, __file__)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.gpus > 1:
        processes.join()
        comm.create_local_process_group(options.gpus)
    setup_logger(distributed_rank=comm.get_rank(), color=False)
    print(f"detectron2 {detectron2.__version__}, torch {torch.__version__}")
    seed_all_rng(options.seed + comm.get_rank())
    data_sets.register()
    evaluation.require_tools(config.DATASETS.TEST[0])
    weights = torch.load(options.weights, map_location="cpu", weights_only=True)["model"]
    try:
        run = Run(config, weights, options, at_a_time)
        run.train()
        metrics = run.test()
    except Interrupted:
        return processes.INTERRUPTED
    except torch.cuda.OutOfMemoryError as error:
        raise SystemExit(processes.too_large(at_a_time)) from error
    if comm.is_main_process():
        run.keep_weights()
        write_text(options.work / "versions.json", json.dumps(versions.of(*MODULES), indent=1))
        write_text(options.work / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False))
        (options.work / "state.pth").unlink()
    return 0


def _parse() -> argparse.Namespace:
    parser = protocol.parser(__doc__ or "")
    parser.add_argument("--weights", type=Path, required=True, help="written by `cgh-bench convert --to detectron2`")
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is written")
    parser.add_argument("--images-at-a-time", type=int, help="in each process; the gradients of a step add up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from state.pth if there is one")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
