#!/usr/bin/env bash
# Run the tests; creates .venv first if there is none.
#
#   bash run_tests.sh           everything
#   bash run_tests.sh --quick   without the tests marked slow; every module is covered
#
# Further options go to pytest: bash run_tests.sh --quick -k metrics
set -euo pipefail
cd "$(dirname "$0")"
case "${1:-}" in -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$(basename "$0")"; exit 0 ;; esac
source recipes/setup_env.sh
setup_env requirements-test.txt
selection=()
[ "${1:-}" = --quick ] && selection=(-m "not slow") && shift
# Two processes, because many tests start scripts that also wait for the disk; -n 0 runs one test after another.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$PYTHON" -m pytest -n 2 --dist loadgroup ${selection[@]+"${selection[@]}"} "$@"
