#!/usr/bin/env bash
# The whole job with SmolLM2-135M-Instruct on both sides.
set -euo pipefail
. "$(dirname "$0")/common.bash"
[ -z "${FEDCOT_TEST_SHORT:-}" ] || { echo "skipped: FEDCOT_TEST_SHORT is set"; exit 77; }
need_model
examples=10 tokens=24
. "$(dirname "$0")/job.bash"
echo "job_real: passed"
