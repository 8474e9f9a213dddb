#!/usr/bin/env bash
# The paper's ADE20K recipe on nodes of a SLURM cluster, one process per GPU. Submit it from the repository's folder,
# which all nodes must share. Options of sbatch come before the script's name, options of train_lseg.py after it:
#
#   sbatch --nodes 4 recipes/train_slurm.sh --batch_size 2
#
# Two minutes before the time limit, and whenever SLURM takes the nodes away, the job goes back into the queue; each
# start resumes from the run's last checkpoint.
#SBATCH --job-name=lseg
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
#SBATCH --output=lseg-%j.log
set -euo pipefail
home="${SLURM_SUBMIT_DIR:?submit this script: sbatch --nodes 2 recipes/train_slurm.sh}" # $0 is a copy in a spool folder
[ -f "$home/train.sh" ] || { echo "error: $home has no train.sh; submit from the repository's folder" >&2; exit 2; }

first="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
port=$((15000 + SLURM_JOB_ID % 10000))
# auto: as many processes as there are GPUs.
export TORCHRUN="--nnodes $SLURM_JOB_NUM_NODES --nproc_per_node auto --rdzv_backend c10d --rdzv_id $SLURM_JOB_ID
    --rdzv_endpoint $first:$port"

trap 'scontrol requeue "$SLURM_JOB_ID" || echo "not requeued; run the same sbatch command to resume from the checkpoint"' USR1
srun --kill-on-bad-exit=1 --cpu-bind=none bash "$home/train.sh" "$@" &
step=$!
while kill -0 "$step" 2>/dev/null; do wait "$step" || true; done # a trapped signal ends a wait early
wait "$step"
