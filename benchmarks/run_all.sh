#!/usr/bin/env bash
# Run all benchmarks on this machine, on its GPU if it has one, and write the table of docs/speed.md. Needs an idle machine.
#
#   bash benchmarks/run_all.sh [--gpu]
#
# --gpu  only what needs a GPU: its tests, how fast it multiplies, its benchmarks; stops without a GPU, and after 25
#        minutes. What failed or had no time left is listed at the end; the rest is in the table. Nothing is committed.
set -euo pipefail
case "${1:-}" in
    "" | --gpu) ;;
    *) echo "error: unknown option $1; the only one is --gpu" >&2; exit 2 ;;
esac
cd "$(dirname "$0")"
PYTHON=${PYTHON:-../.venv/bin/python}
names=(forward train_step evaluate labels openvocab joint dropin scaling data memory) failed=() limit=() end=$((SECONDS + 1500))
if [ "${1:-}" = --gpu ]; then
    "$PYTHON" -c 'import torch; raise SystemExit(0 if torch.cuda.is_available() else "error: PyTorch finds no CUDA GPU")'
    (cd .. && timeout 600 "${PYTHON/#../$PWD/..}" -m pytest -q -m gpu tests/modules) || failed+=("the tests")
    PYTHONPATH=.. "$PYTHON" -m modules.hardware
    names=(forward train_step evaluate labels openvocab joint dropin scaling) # data and memory measure the CPU
fi
for name in "${names[@]}"; do
    echo "== $name ($(date +%T))"
    if [ "${1:-}" = --gpu ]; then
        limit=(timeout $((SECONDS < end ? end - SECONDS : 1)))
    fi
    ${limit[@]+"${limit[@]}"} "$PYTHON" "bench_$name.py" || failed+=("bench_$name.py")
done
"$PYTHON" table.py --page ../docs/speed.md
[ ${#failed[@]} = 0 ] || {
    echo "error: failed, or found no time: ${failed[*]}; see above" >&2
    exit 1
}
