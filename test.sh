#!/usr/bin/env bash
# mIoU on ADE20K's validation set by the published protocol, on all GPUs of this node. Further options are passed on
# and take precedence. The default checkpoint was never released (python -m modules.zoo lists what was); train it with
# train.sh, then: bash test.sh --weights checkpoints/lseg_ade20k_l16/version_0/checkpoints/last.ckpt
set -euo pipefail
home="$(cd "$(dirname "$0")" && pwd)"
source "$home/recipes/launch.sh"
exec "${launch[@]}" "$home/test_lseg.py" --backbone clip_vitl16_384 --eval --dataset ade20k \
    --data-path "$home/../datasets" --weights "$home/checkpoints/lseg_ade20k_l16.ckpt" --widehead --no-scaleinv "$@"
