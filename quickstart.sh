#!/usr/bin/env bash
# LSeg in miniature, on any machine: installs, makes a small world of pictures and a small CLIP, trains on seen labels,
# tests on labels and synonyms that no training mask contained, trains and tests zero-shot on a fold of classes, and ends with
# tables and pictures. If it is interrupted, the same command resumes.
#
#   bash quickstart.sh [--seed N] [--controls] [--folds "0 1 2 3"] [--short] [--folder DIR]
#
# --seed N      make another world and another training; default: 0
# --controls    also test shuffled label embeddings and an untrained text tower (takes about as long again)
# --folds LIST  choose the zero-shot folds; default: 0
# --short       make a smaller world and train one epoch: shows that everything runs, not that it learns
# --folder DIR  write everything there; default: quickstart/ in the repository
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
        -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "error: unknown option $1; see the first lines of quickstart.sh" >&2; exit 2 ;;
    esac
done

minutes=$((6 + 2 * $(wc -w <<< "$folds")))
[ "$controls" = yes ] && minutes=$((2 * minutes))
[ "$short" = yes ] && minutes=3
cat << END
LSeg in miniature: five steps, about $minutes minutes on two CPU cores (the first time a few more, for the installation)
  1  generate pictures of coloured shapes and train a small CLIP on captions about them
  2  train LSeg on masks of 34 labels
  3  test it on all 40 labels, then on synonyms that it was never trained with
  4  train and test zero-shot: new classes, next to a control with exchanged names
  5  show the tables and write the pictures
Everything goes to $folder. If you interrupt it, the same command resumes.
END

source "$home/recipes/setup_env.sh"
setup_env requirements.txt
export PYTHONPATH="$home${PYTHONPATH:+:$PYTHONPATH}" # python -m finds the repository from any folder

# Networks this small gain nothing from more threads, and slow down when other jobs compete for the cores.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
root="$folder/datasets_seed$seed" runs="$folder/runs" results="$folder/results/seed$seed" world=()
training=(--max_epochs 6) zero_shot=(--max_epochs 4)
if [ "$short" = yes ]; then
    root="${root}_short" runs="${runs}_short" results="${results}_short"
    training=(--max_epochs 1) zero_shot=(--max_epochs 1)
    world=(--training 64 --validation 16 --clip_steps 20 --zs_training 4 --zs_test 2)
fi

say() { printf '\n== %s (%s:%02d so far)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)); }

# What both kinds of training share: the small network, and a recipe that suits hundreds of steps, not the paper's.
recipe=(--num_features 48 --backbone_weights random --optimizer adamw --scratch_factor 1 --schedule cosine
    --warmup_steps 50 --batch_size 4 --workers 1 --seed "$seed" --accelerator cpu)

trained() { # $1 name of the run: its checkpoint
    echo "$runs/$1_seed$seed/version_0/checkpoints/last.ckpt"
}

train() { # $1 name of the run, $2 CLIP weights
    "$PYTHON" "$home/train_lseg.py" --dataset miniature --data_path "$root" --backbone tiny_resnet --base_lr 0.008 \
        --clip_weights "$2" --checkpoint_dir "$runs" --exp_name "$1_seed$seed" \
        --weight_decay 0.1 "${recipe[@]}" ${training[@]+"${training[@]}"}
}

measure() { # $1 name of the run, $2 name of the result, further options; prints the totals, not each label's figure
    local run="$1" out="$results/$2"
    shift 2
    "$PYTHON" "$home/test_lseg.py" --eval --dataset miniature --data_path "$root" --weights "$(trained "$run")" \
        --scales 1 --window_batch 2 --workers 1 --device cpu --output_dir "$out" --log_dir "$folder/logs" "$@" |
        grep -E '^(pixel accuracy|mIoU.*): |^wrote '
}

say "1/5 the pictures and the small CLIP"
"$PYTHON" -m miniature.prepare --data_path "$root" --seed "$seed" ${world[@]+"${world[@]}"}

say "2/5 training LSeg on the 34 seen labels"
train trained "$root/miniature/clip_tiny.pt"

say "3/5 testing with all 40 labels"
measure trained labels
say "3/5 testing with synonyms that no mask and no training label ever had"
measure trained synonyms --label_src synonyms
say "3/5 what other label lists do to the first 60 pictures"
rm -rf "$results/robustness" # made anew in seconds; an earlier network's counts would be refused
"$PYTHON" "$home/test_robustness.py" --dataset miniature --data_path "$root" --weights "$(trained trained)" --images 60 \
    --workers 1 --device cpu --output_dir "$results/robustness" | grep -E '^(Check|wrote)'
if [ "$controls" = yes ]; then
    say "3/5 controls: shuffled label embeddings; an untrained text tower"
    measure trained shuffled --shuffle_labels "$seed"
    train untrained random
    measure untrained untrained_labels
    measure untrained untrained_synonyms --label_src synonyms
fi

# The tables of each label are in the reports; what is shown here is one line per test and the last table.
say "4/5 zero-shot: trained on other classes, tested on those of fold $folds, then with exchanged names"
PYTHON="$PYTHON" bash "$home/train_zs.sh" miniature_zs tiny_resnet --lrs 0.008 --folds "$folds" --control \
    --data_path "$root" --clip_weights "$root/miniature/clip_tiny.pt" --checkpoint_dir "$runs/zero_shot_seed$seed" \
    --weight_decay 0.01 "${recipe[@]}" ${zero_shot[@]+"${zero_shot[@]}"} |
    grep --line-buffered -E '^(== .*base_lr|best validation|mIoU: |fold  |mean  |[0-9]+  |wrote .*table)'

say "5/5 the results"
"$PYTHON" -m miniature.report --folder "$folder" --seed "$seed" $([ "$short" = yes ] && echo --short)
