"""Fine-tune a converted backbone under a protocol in detectron2, evaluate it, prove it arrived.

    python -m cgh_bench.transfer_configs.detectron2.train --config coco_det.yaml --weights W.pth --work DIR …

`--weights` is written by `cgh-bench convert --to detectron2`. Options, output and exit codes are those of
`openmmlab.train`.
"""

import os
import sys

import detectron2
import torch
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from cgh_bench.transfer_configs.contract import processes, records
from cgh_bench.transfer_configs.contract.watch import Interrupted
from cgh_bench.transfer_configs.detectron2 import data_sets, evaluation, protocol
from cgh_bench.transfer_configs.detectron2.run import Run

MODULES = ("detectron2", "fvcore", "torch", "torchvision", "numpy", "PIL")
"""The modules listed in `versions.json`."""


def main() -> int:
    """Run; returns the exit code."""
    processes.end_with_parent()
    options = processes.training_parser(__doc__, default=[]).parse_args()
    config = protocol.read(
        options.config, options.settings, options.gpus, options.iterations, options.data, options.weights
    )
    if config.SOLVER.AMP.ENABLED:
        processes.require_gpu_for_mixed_precision(options.gpus, "SOLVER.AMP.ENABLED=false")
    at_a_time = protocol.images_at_a_time(config, max(1, options.gpus), options.images_at_a_time)
    if processes.must_launch(options.gpus):
        processes.launch(options.gpus, "detectron2.train")
    options.work.mkdir(parents=True, exist_ok=True)
    if options.gpus > 1:
        processes.join()
        comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    setup_logger(distributed_rank=comm.get_rank(), color=False)
    print(f"detectron2 {detectron2.__version__}, torch {torch.__version__}")
    seed_all_rng(options.seed + comm.get_rank())
    data_sets.register()
    evaluation.require_tools(config.DATASETS.TEST[0])
    try:
        run = Run(config, options, at_a_time)
        if not (options.resume and run.restore_trained()):
            run.train()
            processes.average_buffers(run.model)
            run.keep_weights()
        metrics = run.test()
    except Interrupted:
        return processes.INTERRUPTED
    except torch.cuda.OutOfMemoryError as error:
        raise SystemExit(processes.out_of_memory(at_a_time)) from error
    if comm.is_main_process():
        records.finish(options.work, metrics, MODULES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
