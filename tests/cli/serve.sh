#!/usr/bin/env bash
# Operating a server: answers that outlive it in --state, its status, a full server, its end by
# SIGTERM. The tiny model writes the answers; what is generated twice is counted by the server.
set -euo pipefail
. "$(dirname "$0")/common.bash"
tiny_model
export OMP_NUM_THREADS=1
examples=30
make_data "$work/data" "$examples" 4
free_port 24200
server=tcp://127.0.0.1:$port
state=$work/state
distill=("$fedcot" distill --model "$model" --server "$server" --train "$work/data/train.jsonl"
         --dev "$work/data/dev.jsonl" --epsilon 8 --rationale-tokens 40 --inference-only --output)

# field NAME: a number of the server's status
field() {
    "$fedcot" status --server "$server" --json >"$work/status" 2>"$work/err" || { cat "$work/err" >&2; fail "status"; }
    python3 -c 'import json, sys; print(int(json.load(open(sys.argv[1]))[sys.argv[2]]))' "$work/status" "$1"
}
summary() { # LOG NAME: a number of the server's summary
    sed -n "s/^$2  *\([0-9]*\).*/\1/p" "$1"
}
end_server() { # [SIGNAL]
    kill "-${1:-TERM}" "$server_pid"
    local got=0
    wait "$server_pid" || got=$?
    [ "${1:-TERM}" = KILL ] || [ "$got" -eq 0 ] || fail "the server ended with $got"
}

# ---- a client and then the server killed: what was finished is there, and not generated again
start_server "$work/one.log" --state "$state"
[ "$(stat -c %a "$state" "$state/answers.log" | tr '\n' ' ')" = "700 600 " ] || fail "others can read the state"
"${distill[@]}" "$work/job" >/dev/null 2>&1 &
client=$!
pids+=("$client")
wait_for "$work/job/received.jsonl" .
kill -9 "$client"
wait "$client" 2>/dev/null || true
for _ in $(seq 600); do
    [ "$(field waiting)" -eq 0 ] && [ "$(field running)" -eq 0 ] && break
    sleep 0.1
done
finished=$(field finished)
end_server KILL 2>/dev/null
start_server "$work/two.log" --state "$state"
kept=$(sed -n 's/.* took up \([0-9]*\) finished answers/\1/p' "$work/two.log")
[ "${kept:=0}" -ge "$finished" ] || { cat "$work/two.log" >&2; fail "expected $finished answers"; }
[ "$(field finished)" -eq "$kept" ] || fail "the status does not show the answers"
received=$(wc -l <"$work/job/received.jsonl")
"${distill[@]}" "$work/job" >/dev/null 2>"$work/err" || { cat "$work/err" >&2; fail "the client after the crash"; }
[ "$(wc -l <"$work/job/rationales.jsonl")" -eq "$examples" ] || fail "rationales are missing"
# (A client that had received everything asks no server, and tells it nothing.)
[ "$received" -eq "$examples" ] || [ "$(field finished)" -eq 0 ] || fail "a finished job is still kept"

# ---- status, as text, as JSON, and by signal
"$fedcot" status --server "$server" >"$work/text" || fail "status"
for name in server clients jobs waiting running finished tokens_per_second memory_bytes uptime busy; do
    grep -q "^$name " "$work/text" || { cat "$work/text" >&2; fail "the status does not show $name"; }
done
[ "$(field memory_bytes)" -gt 1000000 ] || fail "no memory in the status"
"$fedcot" status --server "$server" | grep -q "^server  *$("$fedcot" --version)" || fail "another version"
kill -USR1 "$server_pid"
wait_for "$work/two.log" '^serve: fedcot .* up .* tokens/s'

# ---- a second server on the folder, and one with another instruction
expect 7 "$fedcot" serve --model "$model" --listen tcp://127.0.0.1:$((port + 1)) --state "$state"
said 'another process'
end_server
answers=$(summary "$work/two.log" answers)
[ "$answers" -le $((examples - kept)) ] || fail "$answers answers were generated, though $kept were kept"
expect 3 "$fedcot" serve --model "$model" --task free --listen "$server" --state "$state"
said 'another model or instruction'

# ---- no room for a second job: busy, and the client says so; the status counts it
start_server "$work/three.log" --max-jobs 1
"${distill[@]}" "$work/first" >/dev/null 2>&1 &
client=$!
pids+=("$client")
wait_for "$work/first/received.jsonl" .
kill -9 "$client" # its job keeps the place
wait "$client" 2>/dev/null || true
if [ "$(field jobs)" -eq 1 ]; then # it was not faster than that
    expect 5 "${distill[@]}" "$work/second" --timeout 1
    said 'server: busy, asking again in [0-9]* s'
    said 'the server has been busy'
    [ "$(field busy)" -ge 1 ] || fail "the status does not count busy"
    [ "$(field dropped)" -eq 0 ] || fail "a job was dropped for another"
fi
end_server

# ---- SIGTERM in the middle of a job: status 0, and the client goes on with the next server, also
# under a storm of signals
start_server "$work/four.log" --state "$work/again" --drain 300
"${distill[@]}" "$work/drained" >/dev/null 2>"$work/drained.err" &
client=$!
pids+=("$client")
wait_for "$work/drained/received.jsonl" .
end_server
grep -q '^answers' "$work/four.log" || fail "no summary of a drained server"
grep -q '^serve: draining: [0-9]* running' "$work/four.log" || fail "the server does not say that it drains"
start_server "$work/five.log" --state "$work/again"
(while kill -USR1 "$server_pid" 2>/dev/null; do sleep 0.005; done) &
pids+=("$!")
wait "$client" || { cat "$work/drained.err" >&2; fail "the client of the drained server"; }
[ "$(wc -l <"$work/drained/rationales.jsonl")" -eq "$examples" ] || fail "rationales are missing"
end_server
generated=$(($(summary "$work/four.log" answers) + $(summary "$work/five.log" answers)))
[ "$generated" -eq "$examples" ] || fail "$generated answers were generated for $examples prompts"

# ---- a server that is not there
expect 5 "$fedcot" status --server "$server" --timeout 0.5
said 'no answer'
echo "serve: passed"
