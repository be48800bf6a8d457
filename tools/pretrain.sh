#!/usr/bin/env bash
# Pretrain by a recipe; arguments are those of `cgh-bench pretrain` (see its --help).
#   tools/pretrain.sh cgh_r18_animals                    one process
#   GPUS=8 tools/pretrain.sh cgh_r50_in1k_200ep          one process per GPU on this machine, by torchrun
#   PYTHON=... names another interpreter than `python`.
#
# Several machines: the same command on each, at about the same time, with the number of machines, this one's number and
# an address of machine 0 that all can reach (a port is opened there). All need the data and, for resumption, the same
# --out on a shared disk: machine 0 writes, all read.
#   machine 0:  MACHINES=2 MACHINE=0 MASTER=10.0.0.1:29500 GPUS=4 tools/pretrain.sh cgh_r50_in1k_200ep -o /shared/run
#   machine 1:  MACHINES=2 MACHINE=1 MASTER=10.0.0.1:29500 GPUS=4 tools/pretrain.sh cgh_r50_in1k_200ep -o /shared/run
# Under SLURM use `cgh-bench pretrain --gpus 4 --slurm nodes=2,…` instead, which also requeues pre-empted jobs.
#
# A recipe's batch size and BatchNorm groups are those of all GPUs together; for more GPUs than groups (8) add
# --set method.bn_groups=16. SIGTERM saves after the current step; run again to resume.
set -euo pipefail
python=${PYTHON:-python}
if [ "${MACHINES:-1}" -gt 1 ]; then
    : "${MACHINE:?number of this machine, from 0}" "${MASTER:?HOST:PORT of machine 0}"
    exec "$python" -m torch.distributed.run --nnodes "$MACHINES" --node-rank "$MACHINE" --master-addr "${MASTER%:*}" \
        --master-port "${MASTER##*:}" --nproc-per-node "${GPUS:-1}" -m cgh_bench pretrain "$@"
fi
if [ "${GPUS:-1}" -gt 1 ]; then
    exec "$python" -m torch.distributed.run --standalone --nproc-per-node "$GPUS" -m cgh_bench pretrain "$@"
fi
exec "$python" -m cgh_bench pretrain "$@"
