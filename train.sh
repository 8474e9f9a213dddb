#!/usr/bin/env bash
# The paper's ADE20K recipe, on all GPUs of this node. Further options, such as --batch_size 4, are passed on and take precedence.
# $TORCHRUN, if set, contains options of torchrun that join this node with others (recipes/train_slurm.sh sets it).
set -euo pipefail
home="$(cd "$(dirname "$0")" && pwd)"
python="${PYTHON:-$([ -x "$home/.venv/bin/python" ] && echo "$home/.venv/bin/python" || echo python)}"
# shellcheck disable=SC2206 # the options are words
launch=("$python" -u ${TORCHRUN:+-m torch.distributed.run $TORCHRUN})
exec "${launch[@]}" "$home/train_lseg.py" --dataset ade20k --data_path "$home/../datasets" --batch_size 1 \
    --exp_name lseg_ade20k_l16 --base_lr 0.004 --weight_decay 1e-4 --no-scaleinv --max_epochs 240 \
    --widehead --accumulate_grad_batches 2 --backbone clip_vitl16_384 "$@"
