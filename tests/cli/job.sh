#!/usr/bin/env bash
# The whole job with a model of 160 thousand weights: seconds, also under sanitizers.
set -euo pipefail
. "$(dirname "$0")/common.bash"
tiny_model
examples=120 tokens=48
. "$(dirname "$0")/job.bash"
echo "job: passed"
