#!/usr/bin/env bash
# Runs postnas as a Slurm job, a rank for each GPU.
#
#     sbatch --gpus-per-node=1 --ntasks-per-node=1 scripts/cluster/slurm.sh finetune --config my.yaml      one GPU
#     sbatch --gpus-per-node=2 --ntasks-per-node=2 scripts/cluster/slurm.sh finetune --config my.yaml      two
#     sbatch scripts/cluster/slurm.sh finetune --config my.yaml                                            a node of eight
#     sbatch --nodes=32 scripts/cluster/slurm.sh finetune --config my.yaml                                 256 GPUs
#
# Ten minutes before the job's time is over its ranks are told to save and stop; the job then goes back into the queue and
# goes on where it stopped. Paths in the configuration must be on a file system that all nodes see. Environment: POSTNAS,
# the program (default build-cuda/postnas below the folder of sbatch). Partition, account and time are options of sbatch.
#SBATCH --job-name=postnas
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=postnas-%j.log
set -uo pipefail

case ${1-} in "" | -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
[ -n "${SLURM_JOB_ID-}" ] || { echo "slurm.sh: start it with sbatch; see --help" >&2; exit 2; }
program=${POSTNAS:-$SLURM_SUBMIT_DIR/build-cuda/postnas}
[ -x "$program" ] || { echo "slurm.sh: there is no $program; build it, or name another with POSTNAS" >&2; exit 2; }

# A rank sees all GPUs that the job has on its node and takes its own; with --gpu-bind=none Slurm does not say which.
# Since 22.05 srun does not take --cpus-per-task from the job: a rank would be bound to one processor. A rank that ends badly
# has told the others why: they end by themselves, so Slurm need not end them.
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --cpu-bind=cores --wait=0 --kill-on-bad-exit=0 "$program" "$@"
status=$?
[ $status = 75 ] && scontrol requeue "$SLURM_JOB_ID"
exit $status
