#!/usr/bin/env bash
# mIoU on ADE20K's validation set by the published protocol, on all GPUs of this node. Further options are passed on
# and win: bash test.sh --weights checkpoints/other.ckpt
set -euo pipefail
cd "$(dirname "$0")"
python="${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}"
gpus="$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)"
launch=("$python" -u)
[ "$gpus" -gt 1 ] && launch=("$python" -m torch.distributed.run --standalone --nproc_per_node "$gpus")
exec "${launch[@]}" test_lseg.py --backbone clip_vitl16_384 --eval --dataset ade20k --data-path ../datasets \
    --weights checkpoints/lseg_ade20k_l16.ckpt --widehead --no-scaleinv "$@"
