#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test: first the release build, with the CUDA
# tests on a GPU or under the simulator (test_gpu.sh), then the fast tests again under the address
# and undefined-behaviour sanitizers, then those that use threads under the thread sanitizer.
# Options: --release (only the first part).
set -euo pipefail
cd "$(dirname "$0")/.."

jobs=$(nproc)
./scripts/packages.sh

# Tests that need the real model skip, and say so, where it cannot be had.
if model=$(./scripts/fetch_model.sh); then
    export FEDCOT_MODEL=$model
else
    echo "no model: the tests that need one will be skipped"
fi

build_and_test() { # PRESET [CTEST ARGUMENT ...]
    local preset=$1
    shift
    cmake --preset "$preset" -DFEDCOT_WERROR=ON -DBUILD_TESTING=ON
    cmake --build --preset "$preset" --parallel "$jobs"
    ctest --preset "$preset" "$@"
}

build_and_test release -LE gpu
./scripts/test_gpu.sh build/release
[ "${1:-}" = "--release" ] && exit 0
export FEDCOT_TEST_SHORT=1 # sanitizers cost 5 to 20 times: tests on the real model shorten or skip
build_and_test asan
# OpenMP's own synchronisation is invisible to the thread sanitizer, so our numeric loops run on
# one thread here and the threads of the pipeline, the network and the programs are what it watches.
export OMP_NUM_THREADS=1
build_and_test tsan -R 'pipeline|net/|cli/'
