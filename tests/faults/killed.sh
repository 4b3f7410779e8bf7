#!/usr/bin/env bash
# A client that is killed just before its k-th call to the disk, or when a write was half done, goes on
# with the same bytes.
set -euo pipefail
. "$(dirname "$0")/../cli/common.bash"
tiny_model
make_data "$work" 4 2
export GOMP_SPINCOUNT=2000 ASAN_OPTIONS="${ASAN_OPTIONS:-}:detect_leaks=0" # a traced program has no leak check
python3 "$(dirname "$0")/disk.py" "$fedcot" "$2/tool_disk" "$model" "$work" kill torn
