# Sourced by the scripts in the folder above, which set $home. Sets $python, and in $launch the words that start a script in
# one process per GPU of this node.

python="${PYTHON:-$([ -x "$home/.venv/bin/python" ] && echo "$home/.venv/bin/python" || echo python)}"
case " $* " in
    *" --help "* | *" -h "*) gpus=0 ;; # answered at once
    *) gpus="$("$python" -c 'import torch; print(torch.cuda.device_count())')" ;; # respects CUDA_VISIBLE_DEVICES
esac
export PYTHONPATH="$home${PYTHONPATH:+:$PYTHONPATH}" # python -m finds the repository from any folder
launch=("$python" -u)
[ "$gpus" -le 1 ] || launch=("$python" -u -m torch.distributed.run --standalone --nproc_per_node "$gpus")

stamp() { # a short name for these words, for files that mark what is finished
    printf '%s\0' "$@" | cksum | cut -d' ' -f1
}

test_fold() { # $1 output folder, $2 checkpoint, further options of test_lseg_zs.py; keeps a finished test of the same
    local out="$1" file="$2" state=missing mark
    shift 2
    [ -f "$file" ] && state="$(wc -c < "$file") $(date -r "$file")" # if it is missing, the test reports that
    mark="$out/tested_$(stamp "$file" "$state" "$@")"
    [ -f "$mark" ] && return
    mkdir -p "$out" && rm -f "$out"/tested_*
    "${launch[@]}" "$home/test_lseg_zs.py" --weights "$file" --output_dir "$out" "$@"
    touch "$mark"
}
