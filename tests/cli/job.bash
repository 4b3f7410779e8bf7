# The whole job over a real socket, with $model: several clients at once; a client killed with
# SIGKILL and a server killed and started again, each of which ends with the bytes of an undisturbed
# job and charges nothing twice; a budget that does not suffice; a missing server; a public address.
# Sourced by job.sh and job_real.sh, which set $model, $examples and $tokens.
make_data "$work/data" "$examples" 4
free_port 21000
server=tcp://127.0.0.1:$port

# Called as a program, not a function: the process that is killed must be the client itself.
distill=("$fedcot" distill --model "$model" --server "$server" --train "$work/data/train.jsonl"
         --dev "$work/data/dev.jsonl" --epsilon 8 --rationale-tokens "$tokens" --no-zero-shot
         --no-label-only --tokens-per-step 256 --output)
# A copy of what the first job paid for: the same texts leave again, so results can be compared.
paid() { # OUTPUT
    mkdir -p "$1"
    cp "$work/first/client.ledger" "$work/first/client.ledger.key" "$1"
    "$fedcot" ledger "$1/client.ledger" --moved >/dev/null || fail "the copied ledger"
}
charged() { # OUTPUT
    "$fedcot" ledger "$1/client.ledger" --head "$1/ledger.head" --json |
        python3 -c 'import json, sys; s = json.load(sys.stdin); print(s["documents"], s["units"])'
}
same_as_first() { # OUTPUT
    for file in perturbed received rationales; do
        cmp <(sort "$work/first/$file.jsonl") <(sort "$1/$file.jsonl") ||
            fail "$1: other $file than the undisturbed job"
    done
    cmp "$work/first/model/model.safetensors" "$1/model/model.safetensors" ||
        fail "$1: other weights than the undisturbed job"
    [ "$(charged "$1")" = "$(charged "$work/first")" ] || fail "$1: charged twice"
}

# What cannot be: no server, a public address, a budget that does not suffice, missing flags.
expect 5 "${distill[@]}" "$work/none" --timeout 1
expect 8 "$fedcot" serve --model "$model" --listen tcp://0.0.0.0:$port
said 'loopback'
expect 2 "$fedcot" distill --model "$model" --train x --dev x --output "$work/x"
said '--server'

start_server "$work/server.log"
expect 4 "${distill[@]}" "$work/poor" --budget 20
said 'budget'
[ ! -s "$work/poor/perturbed.jsonl" ] || fail "texts were perturbed beyond the budget"

# Three clients at once, the first of which is the one that others are compared with.
"${distill[@]}" "$work/first" >"$work/first.out" 2>"$work/first.err" &
a=$!
"${distill[@]}" "$work/second" --seed 1 >"$work/second.out" 2>&1 &
b=$!
"${distill[@]}" "$work/third" --inference-only >"$work/third.out" 2>&1 &
c=$!
pids+=("$a" "$b" "$c")
wait "$a" || { cat "$work/first.err" >&2; fail "the first client"; }
wait "$b" || { cat "$work/second.out" >&2; fail "the second client"; }
wait "$c" || { cat "$work/third.out" >&2; fail "the third client"; }
for output in first second third; do
    [ "$(wc -l <"$work/$output/rationales.jsonl")" -eq "$examples" ] || fail "$output: rationales are missing"
done
grep -q 'epsilon 8.0000 per word' "$work/first.out" || fail "no epsilon in the table"
[ -s "$work/first/report.html" ] || fail "no report"

[ "$(stat -c %a "$work/first/rationales.jsonl" "$work/first/job.id" | sort -u)" = 600 ] ||
    fail "other users can read the job's texts"

# Nothing private in what was sent: every word of it is in the words that may leave.
python3 - "$work" <<'EOF'
import json, sys
raw = {json.loads(l)["id"]: json.loads(l) for l in open(sys.argv[1] + "/data/train.jsonl")}
for line in open(sys.argv[1] + "/first/perturbed.jsonl"):
    sent = json.loads(line)
    assert raw[sent["id"]]["question"] not in sent["prompt"]
EOF

# A client killed when its first rationale has come.
paid "$work/killed"
"${distill[@]}" "$work/killed" >/dev/null 2>&1 &
victim=$!
pids+=("$victim")
wait_for "$work/killed/received.jsonl" .
kill -9 "$victim"
wait "$victim" 2>/dev/null || true
[ "$(wc -l <"$work/killed/rationales.jsonl")" -lt "$examples" ] || fail "the client was killed too late"
"${distill[@]}" "$work/killed" >/dev/null 2>"$work/err" || { cat "$work/err" >&2; fail "the killed client"; }
same_as_first "$work/killed"

# The server killed in the middle, and started again while the client waits.
paid "$work/orphan"
"${distill[@]}" "$work/orphan" >/dev/null 2>"$work/orphan.err" &
orphan=$!
pids+=("$orphan")
wait_for "$work/orphan/received.jsonl" .
kill -9 "$server_pid"
wait "$server_pid" 2>/dev/null || true
start_server "$work/server2.log"
wait "$orphan" || { cat "$work/orphan.err" >&2; fail "the client of the killed server"; }
same_as_first "$work/orphan"

# SIGTERM ends a server well, with its summary.
kill "$server_pid"
wait "$server_pid" || fail "the server's exit status after SIGTERM"
grep -q '^answers' "$work/server2.log" || fail "no summary of the server"
