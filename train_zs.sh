#!/usr/bin/env bash
# Zero-shot: trains and tests every fold of a benchmark, then prints its table next to the published one.
#
#   bash train_zs.sh DATASET BACKBONE [--lrs "0.001 0.004"] [--folds "0 1 2 3"] [--control] [train_lseg_zs.py's options]
#   bash train_zs.sh pascal clip_resnet101
#
# DATASET: pascal, coco, fss or miniature_zs. --lrs: base learning rates; the one with the best validation mIoU is tested.
# --control: also tests with the names of the test classes exchanged. If it is killed, the same command resumes.
# Each --seed has runs and results of its own. Uses all GPUs of this node.
set -euo pipefail
home="$(cd "$(dirname "$0")" && pwd)"
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0"; }
case " $* " in *" --help "* | *" -h "*) usage; exit 0 ;; esac
[ $# -ge 2 ] || { echo "error: name a dataset and a backbone" >&2; usage >&2; exit 2; }
dataset="$1" backbone="$2"
shift 2

source "$home/recipes/launch.sh"
# identity: the options that a run cannot change. The others may differ when the run is resumed.
folds="0 1 2 3" lrs="" control=no runs="$home/checkpoints" seed="" epochs="" test_options=() options=() identity=()
[ "$dataset" = fss ] && folds=0
while [ $# -gt 0 ]; do
    case "$1" in --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;; esac
    case "$1" in --?*) flag="${1#--}"; set -- "--${flag//-/_}" "${@:2}" ;; esac
    case "$1" in
        --lrs) lrs="$2"; shift 2 ;;
        --folds) folds="$2"; shift 2 ;;
        --control) control=yes; shift ;;
        --checkpoint_dir) runs="$2"; shift 2 ;;
        --seed) seed="_seed$2" options+=("$1" "$2"); shift 2 ;;
        --max_epochs) epochs="$2" options+=("$1" "$2"); shift 2 ;;
        --data_path | --datapath)
            options+=(--data_path "$2") test_options+=(--data_path "$2"); shift 2 ;;
        --workers) options+=("$1" "$2") test_options+=(--nworker "$2"); shift 2 ;;
        --accelerator | --devices | --num_nodes | --logger) options+=("$1" "$2"); shift 2 ;;
        --crop_size | --label_src)
            options+=("$1" "$2") identity+=("$1" "$2") test_options+=("$1" "$2"); shift 2 ;;
        *) options+=("$1") identity+=("$1"); shift ;;
    esac
done
[ -n "$lrs" ] || lrs="$("$python" -m recipes.zero_shot "$dataset" "$backbone" --value base_lr)"

name="zs_${dataset}_${backbone}" results="$runs/zs_${dataset}_${backbone}_results$seed"

train() { # $1 name of the run, $2 fold, $3 base learning rate; a finished run of the same options is kept
    local folder="$runs/$1" words="${identity[*]-}" mark
    mark="$folder/finished_$(stamp "$words" "$epochs")"
    # A call that was refused, as for missing data, leaves no version behind and binds nobody.
    if [ -f "$folder/options.txt" ] && compgen -G "$folder/version_*" >/dev/null &&
        [ "$(cat "$folder/options.txt")" != "$words" ]; then
        echo "error: $folder was trained with other options:" >&2
        echo "       then: $(cat "$folder/options.txt")" >&2
        echo "       now:  $words" >&2
        echo "       give another --checkpoint_dir, or move that folder away" >&2
        exit 2
    fi
    [ -f "$mark" ] && return
    echo "== $dataset fold $2, base_lr $3"
    mkdir -p "$folder" && echo "$words" > "$folder/options.txt"
    "$python" -u "$home/train_lseg_zs.py" --dataset "$dataset" --backbone "$backbone" --fold "$2" \
        --base_lr "$3" --checkpoint_dir "$runs" --exp_name "$1" ${options[@]+"${options[@]}"}
    touch "$mark"
}

for fold in $folds; do
    candidates=()
    for lr in $lrs; do
        run="${name}_fold${fold}_lr${lr}$seed"
        candidates+=("$runs/$run")
        train "$run" "$fold" "$lr"
    done
    best="$("$python" -m recipes.select_checkpoint "${candidates[@]}")"
    echo "== $dataset fold $fold: testing $best"
    test=(--dataset "$dataset" --fold "$fold" --bsz 8 --log_dir "$runs/logs" ${test_options[@]+"${test_options[@]}"})
    test_fold "$results/fold$fold" "$best" "${test[@]}"
    [ "$control" = yes ] && test_fold "$results/fold${fold}_shuffled" "$best" "${test[@]}" --shuffle_labels 0
done
"$python" -m recipes.report_zs --dataset "$dataset" --backbone "$backbone" --folder "$results"
