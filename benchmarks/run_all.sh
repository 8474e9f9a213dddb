#!/usr/bin/env bash
# Run all benchmarks on this machine, on its GPU if it has one, and write the table of docs/speed.md. Needs an idle machine.
set -euo pipefail
cd "$(dirname "$0")"
PYTHON=${PYTHON:-../.venv/bin/python}
for name in forward train_step evaluate labels scaling data memory; do
    echo "== $name ($(date +%T))"
    "$PYTHON" "bench_$name.py"
done
"$PYTHON" table.py --page ../docs/speed.md
