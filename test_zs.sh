#!/usr/bin/env bash
# Zero-shot: tests every fold of a benchmark with given checkpoints, then prints the table next to the published one.
#
#   bash test_zs.sh DATASET BACKBONE [--weights 'checkpoints/pascal_fold%.ckpt'] [--folds "0 1 2 3"] [more options]
#   bash test_zs.sh pascal clip_resnet101
#
# In --weights, % stands for the fold; by default, the released files (python -m modules.zoo lists them) in checkpoints/
# are tested. Further options go to test_lseg_zs.py. A fold that was already tested with the same file and options is
# not tested again. Uses all GPUs of this node.
set -euo pipefail
home="$(cd "$(dirname "$0")" && pwd)"
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0"; }
case " $* " in *" --help "* | *" -h "*) usage; exit 0 ;; esac
[ $# -ge 2 ] || { echo "error: name a dataset and a backbone" >&2; usage >&2; exit 2; }
dataset="$1" backbone="$2"
shift 2

source "$home/recipes/launch.sh"
folds="0 1 2 3" weights="" options=()
[ "$dataset" = fss ] && folds=0
while [ $# -gt 0 ]; do
    case "$1" in
        --weights) weights="$2"; shift 2 ;;
        --folds) folds="$2"; shift 2 ;;
        *) options+=("$1"); shift ;;
    esac
done
results="$home/outputs/zs_${dataset}_${backbone}"

released() { # $1 fold: the file of the model zoo
    local name
    name="$(cd "$home" && "$python" -m modules.zoo file "$dataset" "$backbone" --fold "$1")" || exit
    echo "$home/checkpoints/$name"
}

for fold in $folds; do
    file="${weights//%/$fold}"
    [ -n "$file" ] || file="$(released "$fold")"
    test_fold "$results/fold$fold" "$file" --dataset "$dataset" --backbone "$backbone" --fold "$fold" --nshot 0 --bsz 8 \
        ${options[@]+"${options[@]}"}
done
"$python" -m recipes.report_zs --dataset "$dataset" --backbone "$backbone" --folder "$results"
