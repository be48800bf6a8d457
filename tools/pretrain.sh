#!/usr/bin/env bash
# Pretrain by a recipe; arguments are those of `cgh-bench pretrain` (see its --help).
#   tools/pretrain.sh cgh_r18_animals                    one process
#   GPUS=8 tools/pretrain.sh cgh_r50_in1k_200ep          one process a GPU on this machine, by torchrun
#   PYTHON=... names another interpreter than `python`.
#
# Several machines: the same command on each, at about the same time, with the number of machines, this one's number and
# an address of machine 0 that all can reach (a port is opened there). All need the data and, for resumption, the same
# --out on a shared disk: machine 0 writes, all read.
#   machine 0:  MACHINES=2 MACHINE=0 MASTER=10.0.0.1:29500 GPUS=4 tools/pretrain.sh cgh_r50_in1k_200ep -o /shared/run
#   machine 1:  MACHINES=2 MACHINE=1 MASTER=10.0.0.1:29500 GPUS=4 tools/pretrain.sh cgh_r50_in1k_200ep -o /shared/run
# Under SLURM, queued and, when it is pre-empted or its time is over, queued again (pip install 'cgh-bench[slurm]'):
#   tools/pretrain.sh cgh_r50_in1k_200ep -o /shared/run --gpus 4 --slurm nodes=2,slurm_partition=gpu,timeout_min=1440
# or by a script of one's own, one task a machine (sbatch --nodes 2 --ntasks-per-node 1 --gpus-per-node 4 --requeue
# --signal=TERM@120):
#   export MACHINES=$SLURM_NNODES MASTER=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):29500 GPUS=4
#   srun bash -c 'MACHINE=$SLURM_NODEID tools/pretrain.sh cgh_r50_in1k_200ep -o /shared/run'
# Batch size and BatchNorm groups of a recipe are those of all GPUs together; for more GPUs than groups (8) add
# --set method.bn_groups=16. SIGTERM saves after the current step; run again to go on.
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
