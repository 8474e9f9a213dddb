#!/usr/bin/env bash
# Run the tests; creates .venv first if there is none.
#
#   bash run_tests.sh           everything
#   bash run_tests.sh --quick   without the tests marked slow; every module is covered
#
# With other versions, each in an environment of its own such as .venv-3.10-lowest (about 6 GB):
#
#   bash run_tests.sh --python 3.10 --lowest   with exactly the lower bounds of requirements*.txt
#   bash run_tests.sh --python 3.13 --newest   with the newest releases of everything, updated at every call
#
# Their output, with all versions, is also written to logs/tests-3.10-lowest.txt.
# Further options go to pytest: bash run_tests.sh --quick -k metrics
set -euo pipefail
cd "$(dirname "$0")"
source recipes/setup_env.sh
selection=() version="" bounds=""
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help) sed -n '2,13s/^# \{0,1\}//p' "$(basename "$0")"; exit 0 ;;
        --quick) selection=(-m "not slow") ;;
        --python) [ $# -gt 1 ] || { echo "error: --python needs a version, such as 3.12" >&2; exit 2; }; version="$2"; shift ;;
        --lowest | --newest) bounds="${1#--}" ;;
        *) break ;;
    esac
    shift
done
# Two processes, because many tests start scripts that also wait for the disk; -n 0 runs one test after another.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
tests=(-m pytest -n 2 --dist loadgroup ${selection[@]+"${selection[@]}"} "$@")
if [ -z "$version$bounds" ]; then
    setup_env requirements-test.txt
    exec "$PYTHON" "${tests[@]}"
fi
[ -n "$version" ] && [ -n "$bounds" ] || { echo "error: give both --python VERSION and --lowest or --newest" >&2; exit 2; }
setup_versions requirements-test.txt "$version" "$bounds"
mkdir -p logs
{
    "$PYTHON" -VV
    "$PYTHON" -m uv pip freeze
    "$PYTHON" "${tests[@]}"
} 2>&1 | tee "logs/tests-$version-$bounds.txt"
