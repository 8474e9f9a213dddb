# Sourced by the scripts in the folder above, which set $home. Sets $python, and sets $launch to the command that runs a
# script in one process per GPU of this node.

python="${PYTHON:-$([ -x "$home/.venv/bin/python" ] && echo "$home/.venv/bin/python" || echo python)}"
gpus="$("$python" -c 'import torch; print(torch.cuda.device_count())')" # respects CUDA_VISIBLE_DEVICES
export PYTHONPATH="$home${PYTHONPATH:+:$PYTHONPATH}" # python -m finds the repository from any folder
launch=("$python" -u)
[ "$gpus" -le 1 ] || launch=("$python" -u -m torch.distributed.run --standalone --nproc_per_node "$gpus")
