#!/usr/bin/env bash
# A program with or without the CUDA back end on a machine where CUDA cannot be used: it starts, says
# why, and works on the CPU. (No GPU is shown to it, and no simulator.)
set -euo pipefail
fedcot=$1
model=$(dirname "$0")/../golden/tiny-chat
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset LD_LIBRARY_PATH
export CUDA_VISIBLE_DEVICES=

fail() {
    echo "FAILED: $*: $(cat "$folder/err")" >&2
    exit 1
}

"$fedcot" info --json >"$folder/out" 2>"$folder/err" || fail "info ended with $?"
grep -q '"cpu"' "$folder/out" || fail "info lists no cpu"
grep -q '"cuda' "$folder/out" && fail "info lists a CUDA device"
grep -qE 'no CUDA device can be used: |this build has no CUDA back end' "$folder/err" ||
    fail "info does not say why there is no CUDA device"

echo '{"id": "1", "prompt": "two and two"}' >"$folder/prompts.jsonl"
generate=("$fedcot" generate --model "$model" --input "$folder/prompts.jsonl" --max-tokens 4
    --dtype fp32 --raw)
status=0
"${generate[@]}" --device cuda --output "$folder/cuda.jsonl" >"$folder/out" 2>"$folder/err" ||
    status=$?
[ "$status" = 8 ] || fail "--device cuda ended with $status, expected 8"
grep -qF -- "--device cpu" "$folder/err" || fail "--device cuda does not say what to do"
[ ! -e "$folder/cuda.jsonl" ] || fail "--device cuda wrote results"

for device in auto cpu; do
    "${generate[@]}" --device $device --output "$folder/$device.jsonl" >"$folder/out" \
        2>"$folder/err" || fail "--device $device ended with $?"
done
cmp -s "$folder/auto.jsonl" "$folder/cpu.jsonl" || fail "auto and cpu differ"
