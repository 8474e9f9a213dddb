#!/usr/bin/env bash
# Everything that CI runs. Makes .venv if there is none. Further arguments go to pytest: bash run_tests.sh -k metrics
set -euo pipefail
cd "$(dirname "$0")"
source setup_env.sh
setup_env requirements-test.txt
exec "$PYTHON" -m pytest "$@"
