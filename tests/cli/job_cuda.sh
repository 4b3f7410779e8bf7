#!/usr/bin/env bash
# The whole job with server and client on a CUDA device, through the real socket, beside the same
# job on the CPU from the same perturbed texts; a client that is killed and goes on; and what
# --device says.
set -euo pipefail
. "$(dirname "$0")/common.bash"
tiny_model

make_data "$work/data" 3 1

# Names and messages need no device.
expect 2 "$fedcot" eval --model "$model" --input "$work/data/dev.jsonl" --output "$work/x" --device gpu
said 'expected cpu, cuda, cuda:N'
expect 8 "$fedcot" eval --model "$model" --input "$work/data/dev.jsonl" --output "$work/x" --device cpu --dtype fp16
said 'take one of them, or --device cuda'
"$fedcot" info --json >"$work/devices" 2>"$work/why" || fail "info does not list the devices"
grep -q '"cpu"' "$work/devices" || fail "info does not list the CPU"
if ! grep -q '"cuda:0"' "$work/devices"; then
    expect 8 "$fedcot" eval --model "$model" --input "$work/data/dev.jsonl" --output "$work/x" \
        --device cuda
    echo "skipped: $(cat "$work/why")"
    exit 77
fi

export FEDCOT_ALGO_CACHE=off
free_port 22000
server=tcp://127.0.0.1:$port

# Called as a program, not a function: the process that is killed must be the client itself.
job() { # DEVICE OUTPUT: sets $job
    job=("$fedcot" distill --model "$model" --server "$server" --train "$work/data/train.jsonl"
         --dev "$work/data/dev.jsonl" --epsilon 8 --rationale-tokens 4 --timeout 600 --no-zero-shot
         --no-label-only --tokens-per-step 256 --dtype fp32 --device "$1" --output "$2")
}
paid() { # OUTPUT: a copy of what the first job paid for, so that the same texts leave again
    mkdir -p "$1"
    cp "$work/cuda/client.ledger" "$work/cuda/client.ledger.key" "$1"
    "$fedcot" ledger "$1/client.ledger" --moved >/dev/null || fail "the copied ledger"
}
whole() { # OUTPUT
    [ "$(wc -l <"$1/rationales.jsonl")" -eq 3 ] || fail "$1: rationales are missing"
    [ -s "$1/report.html" ] && [ -s "$1/model/model.safetensors" ] || fail "$1: no report or model"
}

start_server "$work/server.log" --device cuda --dtype fp32
grep -q '^device cuda:0: ' "$work/server.log" || fail "the server does not say its device"
job cuda "$work/cuda"
"${job[@]}" >"$work/out" 2>"$work/err" || { cat "$work/err" >&2; fail "the job on CUDA"; }
grep -q '^device cuda:0: ' "$work/err" || fail "the client does not say its device"
whole "$work/cuda"

# Killed when its first rationale has come, and started again: the same bytes.
paid "$work/killed"
job cuda "$work/killed"
"${job[@]}" >/dev/null 2>"$work/victim.err" &
victim=$!
pids+=("$victim")
wait_for "$work/killed/received.jsonl" .
kill -9 "$victim" 2>/dev/null || true
wait "$victim" 2>/dev/null || true
"${job[@]}" >/dev/null 2>"$work/err" || { cat "$work/err" >&2; fail "the job that was killed"; }
cmp "$work/cuda/model/model.safetensors" "$work/killed/model/model.safetensors" ||
    fail "the restarted job trained other weights"
for file in received rationales; do
    cmp <(sort "$work/cuda/$file.jsonl") <(sort "$work/killed/$file.jsonl") ||
        fail "the restarted job has other $file"
done
kill "$server_pid"
wait "$server_pid" || fail "the server's exit status after SIGTERM"

# The same job on the CPU: fp32 differs in the last bits only, so the texts are the same.
start_server "$work/server_cpu.log" --device cpu --dtype fp32
paid "$work/cpu"
job cpu "$work/cpu"
"${job[@]}" >/dev/null 2>"$work/err" || { cat "$work/err" >&2; fail "the job on the CPU"; }
whole "$work/cpu"
for file in perturbed received rationales; do
    cmp <(sort "$work/cuda/$file.jsonl") <(sort "$work/cpu/$file.jsonl") ||
        fail "CUDA and CPU differ in $file"
done
python3 - "$work" <<'EOF'
import json, struct, sys
def weights(path):
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    assert '"F32"' in data[8:8 + n].decode()
    return struct.unpack(f"<{(len(data) - 8 - n) // 4}f", data[8 + n:])
a, b = (weights(f"{sys.argv[1]}/{d}/model/model.safetensors") for d in ("cuda", "cpu"))
worst = max(abs(x - y) for x, y in zip(a, b))
assert len(a) == len(b) and worst <= 1e-4, worst
EOF
echo "job_cuda: passed"
