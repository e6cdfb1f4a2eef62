#!/usr/bin/env bash
# Runs all tests, slow ones too, on every stack whose Python is there: Python 3.11 with what pip gives, once more with
# 64-bit JAX; Python 3.13 with the newest jax, once more in Flax's tree mode; and the oldest versions that
# pyproject.toml allows.
# Arguments are handed on to pytest: tests/stacks.sh -x tests/query
set -uo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0

# stack NAME PYTHON "SETTING=VALUE ..." "REQUIREMENT ..." [pytest's arguments]
stack() {
    local name=$1 python=$2 settings=$3 requirements=$4
    shift 4
    if ! "$python" -c '' 2> /dev/null; then
        echo "== $name: skipped, there is no $python"
        return
    fi
    local environment=$folder/$python-${requirements//[^a-z0-9]/}
    if [ ! -d "$environment" ]; then
        "$python" -m venv "$environment"
        # shellcheck disable=SC2086 # words are requirements
        if ! "$environment/bin/pip" install --quiet -e '.[test]' $requirements; then
            echo "== $name: FAILED to install"
            failed=1
            return
        fi
    fi
    echo "== $name: $("$environment/bin/python" -c '
import sys, flax, jax, numpy
print(f"Python {sys.version.split()[0]}, jax {jax.__version__}, flax {flax.__version__}, numpy {numpy.__version__}")')"
    # shellcheck disable=SC2086 # words are settings
    if ! env JAX_DISABLE_MOST_OPTIMIZATIONS=0 $settings "$environment/bin/python" -m pytest -q -p no:cacheprovider -m "" "$@"; then
        echo "== $name: FAILED"
        failed=1
    fi
}

stack "what pip gives" python3.11 "" "" "$@"
stack "64-bit JAX" python3.11 "JAX_ENABLE_X64=1" "" "$@"
stack "newest" python3.13 "" "" "$@"
stack "newest, tree mode" python3.13 "NNX_GRAPH_MODE=false" "" "$@"
stack "oldest" python3.11 "" "jax==0.7.2 jaxlib==0.7.2 flax==0.11.2 numpy==2.1.3" "$@"
exit $failed
