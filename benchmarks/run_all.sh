#!/usr/bin/env bash
# Run all benchmarks on this machine, on its GPU if it has one, and write the table of docs/speed.md. Needs an idle machine.
#
#   bash benchmarks/run_all.sh [--gpu]
#
# --gpu  stop if there is no GPU; first run the tests that need one, then print what the machine multiplies fast
set -euo pipefail
case "${1:-}" in
    "" | --gpu) ;;
    *) echo "error: unknown option $1; the only one is --gpu" >&2; exit 2 ;;
esac
cd "$(dirname "$0")"
PYTHON=${PYTHON:-../.venv/bin/python}
if [ "${1:-}" = --gpu ]; then
    "$PYTHON" -c 'import torch; raise SystemExit(0 if torch.cuda.is_available() else "error: PyTorch finds no CUDA GPU")'
    (cd .. && "${PYTHON/#../$PWD/..}" -m pytest -q -m gpu tests)
    PYTHONPATH=.. "$PYTHON" -m modules.hardware
fi
for name in forward train_step evaluate labels openvocab scaling data memory; do
    echo "== $name ($(date +%T))"
    "$PYTHON" "bench_$name.py"
done
"$PYTHON" table.py --page ../docs/speed.md
