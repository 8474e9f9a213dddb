#!/usr/bin/env bash
# Everything that CI runs. Makes .venv if there is none. Further arguments go to pytest: bash run_tests.sh -k metrics
set -euo pipefail
cd "$(dirname "$0")"
source recipes/setup_env.sh
setup_env requirements-test.txt
# Two at a time: most tests start scripts, which wait for the disk as long as they compute. -n 0: one after another.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$PYTHON" -m pytest -n 2 --dist worksteal "$@"
