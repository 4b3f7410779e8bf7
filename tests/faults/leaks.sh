#!/usr/bin/env bash
# Nothing private gets out of a whole job, and a leak on purpose is found: see leaks.py.
set -euo pipefail
. "$(dirname "$0")/../cli/common.bash"
tiny_model
fedcot=$(realpath "$fedcot") model=$(realpath "$model") tools=$(realpath "$2")
here=$(dirname "$0")
cc=$(command -v "${CC:-cc}" || command -v gcc) || { echo "skipped: no compiler for the leaks"; exit 77; }
leaks=()
ways=(header log coded file key)
[ -z "${FEDCOT_TEST_SHORT:-}" ] || ways=(header key)
for way in "${ways[@]}"; do
    "$cc" -shared -fPIC -DLEAK_"${way^^}" "$here/preload/leak.c" -o "$work/$way.so" -ldl
    leaks+=("$work/$way.so")
done
# Under the address sanitizer a traced program has no leak check, and libraries may come before its own.
export GOMP_SPINCOUNT=2000
export ASAN_OPTIONS="${ASAN_OPTIONS:-}:detect_leaks=0:verify_asan_link_order=0"
python3 "$here/leaks.py" "$fedcot" "$tools" "$model" "$work" "${leaks[@]}"
