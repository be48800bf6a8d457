#!/usr/bin/env bash
# Pretrain by a recipe; arguments are those of `cgh-bench pretrain` (see its --help).
#   tools/pretrain.sh cgh_r18_animals                    one process
#   GPUS=8 tools/pretrain.sh cgh_r50_in1k_200ep          one process a GPU on this machine, by torchrun
#   PYTHON=... names another interpreter than `python`.
set -euo pipefail
python=${PYTHON:-python}
if [ "${GPUS:-1}" -gt 1 ]; then
    exec "$python" -m torch.distributed.run --standalone --nproc-per-node "$GPUS" -m cgh_bench pretrain "$@"
fi
exec "$python" -m cgh_bench pretrain "$@"
