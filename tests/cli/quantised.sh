#!/usr/bin/env bash
# --keep-quantised: the same answers from a third of the memory, by generate and by serve; refused
# where there is nothing to keep.
set -euo pipefail
source "$(dirname "$0")/common.bash" "$1"

cat >"$work/prompts.jsonl" <<'END'
{"id": "a", "prompt": "The capital of France is"}
{"id": "b", "prompt": "Water boils at a temperature of"}
END

generate() { # OUTPUT FLAG ...
    local out=$1
    shift
    "$fedcot" generate --model "$model" --input "$work/prompts.jsonl" --output "$out" --raw \
        --max-tokens 12 --cache-tokens 256 --device cpu --dtype fp32 "$@"
}

# Safetensors in BF16 hold no blocks; training has no such flag.
tiny_model
expect 8 generate "$work/none.jsonl" --keep-quantised
said 'expected matrices in Q4_0, Q4_1 or Q8_0, found safetensors'
expect 2 "$fedcot" train --keep-quantised
said 'keep-quantised'

need_model
generate "$work/expanded.jsonl" 2>"$work/expanded.log"
generate "$work/kept.jsonl" --keep-quantised 2>"$work/kept.log"
cmp "$work/expanded.jsonl" "$work/kept.jsonl" || fail "other answers with --keep-quantised"
grep -q 'memory quantised weights' "$work/kept.log" || fail "the report does not show what is kept"
peak() { sed -n 's/^memory peak *\([0-9]*\).*/\1/p' "$1"; }
[ "$(peak "$work/kept.log")" -lt $(($(peak "$work/expanded.log") / 3)) ] ||
    fail "memory: $(peak "$work/kept.log") of $(peak "$work/expanded.log") MiB"

free_port 24000
server=tcp://127.0.0.1:$port
start_server "$work/server.log" --keep-quantised --device cpu --max-batch 2 --cache-tokens 512
grep -q 'memory quantised weights' "$work/server.log" || fail "the server's report lacks it"
kill -TERM "$server_pid"
wait "$server_pid" || fail "the server's exit status: $?"
