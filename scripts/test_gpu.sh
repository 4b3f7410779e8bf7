#!/usr/bin/env bash
# Runs the tests of label gpu of a build: on this machine's GPU if there is one; else under the CUDA
# simulator, in each of its modes; else they are skipped, each saying why.
#
#     scripts/test_gpu.sh [BUILD FOLDER]      (build/release)
#
# The simulator's source is FEDCOT_CUDA_SIM or ../shared/ptxsim (it may be read-only and is built in
# build/ptxsim); FEDCOT_CUDA_SIM may also name a folder where it is built, with lib/libcudart.so.13.
set -euo pipefail
cd "$(dirname "$0")/.."

build=${1:-build/release}
jobs=$(nproc)

gpu_tests() { # [NAME=VALUE ...] -- [CTEST ARGUMENT ...]
    local settings=()
    while [ "$1" != "--" ]; do
        settings+=("$1")
        shift
    done
    shift
    env "${settings[@]}" ctest --test-dir "$build" -L gpu -j "$jobs" --output-on-failure "$@"
}

if ctest --test-dir "$build" -N -L gpu | grep -q '^Total Tests: 0$'; then
    echo "no CUDA tests: $build was made without nvcc"
    exit 0
fi

if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU '; then
    echo "CUDA tests on $(nvidia-smi -L | head -1)"
    gpu_tests --
    exit 0
fi

simulator=${FEDCOT_CUDA_SIM:-../shared/ptxsim}
if [ -e "$simulator/lib/libcudart.so.13" ]; then
    libraries=$(cd "$simulator/lib" && pwd)
elif [ -f "$simulator/Makefile" ]; then
    echo "building the CUDA simulator of $simulator"
    make -s -C "$simulator" -j "$jobs" BUILD="$PWD/build/ptxsim"
    libraries=$PWD/build/ptxsim/lib
elif [ -n "${FEDCOT_CUDA_SIM:-}" ]; then
    echo "FEDCOT_CUDA_SIM=$simulator holds neither a Makefile nor lib/libcudart.so.13" >&2
    exit 1
else
    echo "no GPU and no simulator (set FEDCOT_CUDA_SIM): the CUDA tests skip"
    gpu_tests --
    exit 0
fi

# One worker a test: sums by atomics, if there were any, would have a fixed order, and two tests run
# side by side. The first error ends a test. Chosen GEMM algorithms stay out of the home folder.
common=(LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    PTXSIM_THREADS=1 PTXSIM_ABORT=1 FEDCOT_ALGO_CACHE=off)
echo "CUDA tests under the simulator: fresh memory poisoned"
gpu_tests "${common[@]}" PTXSIM_POISON=1 --
for mode in RACE INITCHECK ASYNC; do
    echo "CUDA kernel tests under the simulator: $mode"
    gpu_tests "${common[@]}" "PTXSIM_$mode=1" -- -R '^cuda/'
done
# Host memory that is read too early or filled again too early shows in no other mode.
echo "CUDA engine tests under the simulator: ASYNC"
gpu_tests "${common[@]}" PTXSIM_ASYNC=1 PTXSIM_POISON=1 -- -R '^engine_cuda/(steps|generation)$'
echo "memory that the CUDA kernels touch under the simulator, against their floors"
env "${common[@]}" "$build/fedcot-bench" counters
