#!/usr/bin/env bash
# mIoU on ADE20K's validation set by the published protocol, on all GPUs of this node. Further options are passed on
# and win: bash test.sh --weights other.ckpt
set -euo pipefail
home="$(cd "$(dirname "$0")" && pwd)"
python="${PYTHON:-$([ -x "$home/.venv/bin/python" ] && echo "$home/.venv/bin/python" || echo python)}"
gpus="$("$python" -c 'import torch; print(torch.cuda.device_count())')" # respects CUDA_VISIBLE_DEVICES
launch=("$python" -u)
[ "$gpus" -gt 1 ] && launch=("$python" -m torch.distributed.run --standalone --nproc_per_node "$gpus")
exec "${launch[@]}" "$home/test_lseg.py" --backbone clip_vitl16_384 --eval --dataset ade20k \
    --data-path "$home/../datasets" --weights "$home/checkpoints/lseg_ade20k_l16.ckpt" --widehead --no-scaleinv "$@"
