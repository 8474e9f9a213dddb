#!/usr/bin/env bash
# LSeg in miniature, on any machine: installs, makes a small world of pictures and a small CLIP, trains on seen labels,
# tests on labels and synonyms that no mask ever had, then zero-shot on a fold of classes, and ends with the tables and
# the pictures.
#
#   bash quickstart.sh [--seed N] [--controls] [--folds "0 1 2 3"] [--short] [--folder DIR]
#
# --controls  also an untrained text tower, and the labels' embeddings shuffled (about as long again)
# --folds     which zero-shot folds; default: the first
# --short     a smaller world and one epoch: shows that everything runs, not that it learns
set -euo pipefail
home="$(cd "$(dirname "$0")" && pwd)"

seed=0 controls=no short=no folds=0 folder="$home/quickstart"
while [ $# -gt 0 ]; do
    case "$1" in
        --seed) seed="$2"; shift 2 ;;
        --controls) controls=yes; shift ;;
        --short) short=yes; shift ;;
        --folds) folds="$2"; shift 2 ;;
        --folder) folder="$2"; shift 2 ;;
        -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "error: unknown option $1; see the first lines of quickstart.sh" >&2; exit 2 ;;
    esac
done

source "$home/recipes/setup_env.sh"
setup_env requirements.txt
export PYTHONPATH="$home${PYTHONPATH:+:$PYTHONPATH}" # python -m finds the repository from any folder

# Networks this small gain nothing from more threads, and lose much where other jobs compete for the cores.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
root="$folder/datasets_seed$seed" runs="$folder/runs" world=() training=(--max_epochs 6) zero_shot=(--max_epochs 4)
if [ "$short" = yes ]; then
    root="${root}_short" runs="${runs}_short" training=(--max_epochs 1) zero_shot=(--max_epochs 1)
    world=(--training 64 --validation 16 --clip_steps 20 --zs_training 4 --zs_test 2)
fi

say() { printf '\n== %s\n' "$*"; }

# What both kinds of training share: the small network, and a recipe that suits hundreds of steps, not the paper's.
recipe=(--num_features 48 --backbone_weights random --optimizer adamw --scratch_factor 1 --schedule cosine
    --warmup_steps 50 --batch_size 4 --workers 1 --seed "$seed" --accelerator cpu)

train() { # $1 name of the run, $2 CLIP weights
    "$PYTHON" "$home/train_lseg.py" --dataset miniature --data_path "$root" --backbone tiny_resnet --base_lr 0.008 \
        --clip_weights "$2" --checkpoint_dir "$runs" --exp_name "$1_seed$seed" \
        --weight_decay 0.1 "${recipe[@]}" ${training[@]+"${training[@]}"}
}

measure() { # $1 name of the run, $2 name of the result, further options
    local run="$1" result="$2" out="$folder/results/seed$seed"
    shift 2
    [ "$short" = yes ] && out="${out}_short"
    "$PYTHON" "$home/test_lseg.py" --eval --dataset miniature --data_path "$root" \
        --weights "$runs/${run}_seed$seed/version_0/checkpoints/last.ckpt" --scales 1 --window_batch 2 --workers 1 \
        --device cpu --output_dir "$out/$result" --log_dir "$folder/logs" "$@"
}

say "1/5 a small world of pictures, and a small CLIP that has read about it"
"$PYTHON" -m miniature.prepare --data_path "$root" --seed "$seed" ${world[@]+"${world[@]}"}

say "2/5 training LSeg on the seen labels"
train trained "$root/miniature/clip_tiny.pt"

say "3/5 testing: all labels, then synonyms that no mask and no training label ever had"
measure trained labels > /dev/null
measure trained synonyms --label_src synonyms > /dev/null
if [ "$controls" = yes ]; then
    say "controls: shuffled label embeddings; an untrained text tower"
    measure trained shuffled --shuffle_labels "$seed" > /dev/null
    train untrained random
    measure untrained untrained_labels > /dev/null
    measure untrained untrained_synonyms --label_src synonyms > /dev/null
fi

say "4/5 zero-shot: trained on other classes, tested on those of fold $folds, beside exchanged names"
PYTHON="$PYTHON" bash "$home/train_zs.sh" miniature_zs tiny_resnet --lrs 0.008 --folds "$folds" --control \
    --data_path "$root" --clip_weights "$root/miniature/clip_tiny.pt" --checkpoint_dir "$runs/zero_shot_seed$seed" \
    --weight_decay 0.01 "${recipe[@]}" ${zero_shot[@]+"${zero_shot[@]}"}

say "5/5 the results"
"$PYTHON" -m miniature.report --folder "$folder" --seed "$seed" $([ "$short" = yes ] && echo --short)
