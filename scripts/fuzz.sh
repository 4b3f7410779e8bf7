#!/usr/bin/env bash
# Fuzzes each target of tests/fuzz with libFuzzer under the address and undefined-behaviour
# sanitizers, one after the other, and prints for each how much ran, how many inputs were kept and
# how much of the named source files they cover.
#
#   scripts/fuzz.sh [--seconds N] [--jobs N] [TARGET ...]     (60 seconds, 1 job, every target)
#
# What the fuzzer kept lies in build/fuzz/corpus/TARGET and is where the next run goes on; a finding
# is left in build/fuzz/findings/TARGET-*. Mend the bug and add the file to tests/fuzz/seeds/TARGET.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=60 jobs=1
while [ $# -gt 0 ]; do
    case $1 in
        --seconds) seconds=$2; shift 2 ;;
        --jobs) jobs=$2; shift 2 ;;
        -*) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
        *) break ;;
    esac
done
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    for source in tests/fuzz/fuzz_*.c; do
        name=${source##*/fuzz_}
        targets+=("${name%.c}")
    done
fi

./scripts/packages.sh
for tool in clang llvm-profdata llvm-cov; do
    command -v $tool >/dev/null || {
        echo "fuzz.sh: $tool is missing: apt-get install clang llvm libomp-dev" >&2
        exit 1
    }
done
cmake --preset fuzz -DBUILD_TESTING=ON >/dev/null
cmake --build --preset fuzz --parallel "$(nproc)" --target "${targets[@]/#/fuzz_}" | tail -n 1
findings=build/fuzz/findings
mkdir -p $findings
export OMP_NUM_THREADS=1

# The sources that a target is about: those its first comment names.
sources_of() { # TARGET
    sed -n '1,/\*\//p' "tests/fuzz/fuzz_$1.c" | grep -oE '[a-z_0-9/]+(\*)?\.c' | while read -r name; do
        case $name in
            */*) folder=${name%/*} ;;
            *) name=$folder/$name ;;
        esac
        ls $name 2>/dev/null || true
    done | sort -u
}

coverage_of() { # TARGET: "84.3 % of 912 lines"
    local program=build/fuzz/tests/fuzz_$1 sources
    sources=$(sources_of "$1")
    LLVM_PROFILE_FILE=build/fuzz/$1.profraw "$program" -runs=0 "build/fuzz/corpus/$1" >/dev/null 2>&1
    llvm-profdata merge -sparse "build/fuzz/$1.profraw" -o "build/fuzz/$1.profdata"
    # shellcheck disable=SC2086 # one argument a source
    llvm-cov report "$program" -instr-profile="build/fuzz/$1.profdata" $sources 2>/dev/null |
        awk '$1 == "TOTAL" { printf "%s of %d lines", $10, $8 }'
}

failed=0
for target in "${targets[@]}"; do
    corpus=build/fuzz/corpus/$target
    mkdir -p "$corpus"
    cp -n "tests/fuzz/seeds/$target"/* "$corpus" 2>/dev/null || true
    for golden in $(sed -n "s/^$target //p" tests/fuzz/golden_seeds.txt); do
        cp -n "tests/golden/$golden" "$corpus/${golden//\//_}"
    done
    log=build/fuzz/$target.log
    if LLVM_PROFILE_FILE=/dev/null "build/fuzz/tests/fuzz_$target" -max_total_time="$seconds" \
        -jobs=$((jobs > 1 ? jobs : 0)) -workers="$jobs" -max_len=200000 -timeout=20 \
        -rss_limit_mb=4096 -print_final_stats=1 -artifact_prefix="$findings/$target-" "$corpus" \
        >"$log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
        echo "fuzz/$target: no finding in $seconds s, ${runs:-?} inputs run," \
            "$(find "$corpus" -type f | wc -l) kept, $(coverage_of "$target")"
    else
        failed=1
        echo "fuzz/$target: FINDING, see $log and $findings/$target-*"
    fi
done
exit $failed
