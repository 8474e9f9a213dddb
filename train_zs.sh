#!/usr/bin/env bash
# Zero-shot: trains and tests every fold of a benchmark, then prints its table next to the published one.
#
#   bash train_zs.sh DATASET BACKBONE [--lrs "0.001 0.004"] [--folds "0 1 2 3"] [--control] [train_lseg_zs.py's options]
#   bash train_zs.sh pascal clip_resnet101
#
# DATASET pascal, coco, fss or miniature_zs. --lrs: base learning rates; the one with the best validation mIoU is tested.
# --control: also tests with the names of the test classes exchanged. If it is interrupted, run it again to resume.
# Uses all GPUs of this node.
set -euo pipefail
home="$(cd "$(dirname "$0")" && pwd)"
[ $# -ge 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
dataset="$1" backbone="$2"
shift 2

source "$home/recipes/launch.sh"
folds="0 1 2 3" lrs="" control=no runs="$home/checkpoints" test_options=() options=()
[ "$dataset" = fss ] && folds=0
while [ $# -gt 0 ]; do
    case "$1" in --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;; esac
    case "$1" in --?*) flag="${1#--}"; set -- "--${flag//-/_}" "${@:2}" ;; esac
    case "$1" in
        --lrs) lrs="$2"; shift 2 ;;
        --folds) folds="$2"; shift 2 ;;
        --control) control=yes; shift ;;
        --checkpoint_dir) runs="$2"; shift 2 ;;
        --data_path | --datapath)
            options+=(--data_path "$2") test_options+=(--data_path "$2"); shift 2 ;;
        --crop_size | --label_src) options+=("$1" "$2") test_options+=("$1" "$2"); shift 2 ;;
        *) options+=("$1"); shift ;;
    esac
done
[ -n "$lrs" ] || lrs="$("$python" -m recipes.zero_shot "$dataset" "$backbone" --value base_lr)"

name="zs_${dataset}_${backbone}" results="$runs/zs_${dataset}_${backbone}_results"

measure() { # $1 fold, $2 folder of the result, further options; a result of the same checkpoint is kept
    local fold="$1" out="$results/$2"
    shift 2
    grep -qsF "\"weights\": \"$best\"" "$out/results.json" && return 0
    "${launch[@]}" "$home/test_lseg_zs.py" --dataset "$dataset" --fold "$fold" --bsz 8 --weights "$best" \
        --output_dir "$out" --log_dir "$runs/logs" ${test_options[@]+"${test_options[@]}"} "$@"
}

for fold in $folds; do
    candidates=()
    for lr in $lrs; do
        run="${name}_fold${fold}_lr${lr}"
        done_mark="$runs/$run/finished_$(printf '%s ' ${options[@]+"${options[@]}"} | cksum | cut -d' ' -f1)"
        candidates+=("$runs/$run")
        [ -f "$done_mark" ] && continue
        echo "== $dataset fold $fold, base_lr $lr"
        "$python" -u "$home/train_lseg_zs.py" --dataset "$dataset" --backbone "$backbone" --fold "$fold" \
            --base_lr "$lr" --checkpoint_dir "$runs" --exp_name "$run" ${options[@]+"${options[@]}"}
        rm -rf "$results/fold$fold" "$results/fold${fold}_shuffled"
        touch "$done_mark"
    done
    best="$("$python" -m recipes.select_checkpoint "${candidates[@]}")"
    echo "== $dataset fold $fold: testing $best"
    measure "$fold" "fold$fold"
    [ "$control" = yes ] && measure "$fold" "fold${fold}_shuffled" --shuffle_labels 0
done
"$python" -m recipes.report_zs --dataset "$dataset" --backbone "$backbone" --folder "$results"
