#!/usr/bin/env bash
# A whole job through an encrypted session, with a server on every address; keys and lists that do not
# fit; a client that is taken off the list, and another that is put on it.
set -euo pipefail
. "$(dirname "$0")/common.bash"
tiny_model
make_data "$work/data" 40 4
free_port 20400
server=tcp://0.0.0.0:$port
url=tcp://localhost:$port
k=$work/keys
mkdir "$k"

keygen() { # NAME
    "$fedcot" keygen --out "$k/$1" >"$work/out"
    grep -q "$(cat "$k/$1.pub")" "$work/out" || fail "keygen $1 did not print its public key"
}
keygen server
keygen ward
keygen other
[ "$(stat -c %a "$k/ward")" = 600 ] || fail "the secret key's mode"
[ "$(cat "$k/server.pub" "$k/ward.pub" "$k/other.pub" | sort -u | wc -l)" -eq 3 ] || fail "equal keys"
before=$(cksum <"$k/ward")
expect 2 "$fedcot" keygen --out "$k/ward"
said 'never overwritten'
[ "$before" = "$(cksum <"$k/ward")" ] || fail "keygen touched a key that was there"

# $clients: a list of its own mode, whatever the umask.
list() { # NAME ...
    for name in "$@"; do echo "$(cat "$k/$name.pub") $name tokens-per-day=1000000 rate=1000"; done >"$k/new"
    chmod 644 "$k/new"
    mv "$k/new" "$k/clients"
}
list ward
serve=("$fedcot" serve --model "$model" --listen "$server")
expect 2 "${serve[@]}" --key "$k/server"
said '--clients'
expect 3 "${serve[@]}" --key "$k/server" --clients "$k/server.pub"
said 'line 1'
chmod 640 "$k/other"
expect 3 "${serve[@]}" --key "$k/other" --clients "$k/clients"
said 'chmod 600'
chmod 600 "$k/other"
expect 8 "${serve[@]}"
said 'loopback'

start_server "$work/server.log" --key "$k/server" --clients "$k/clients" --pad-frames power2
distill=("$fedcot" distill --model "$model" --train "$work/data/train.jsonl"
         --dev "$work/data/dev.jsonl" --epsilon 8 --rationale-tokens 32 --timeout 60 --no-zero-shot
         --inference-only --server)
expect 2 "${distill[@]}" "$url" --key "$k/ward" --output "$work/half"
said '--server-key'
expect 2 "${distill[@]}" "$url" --key "$k/ward" --server-key "$k/server" --output "$work/secret"
said 'secret key'
expect 3 "${distill[@]}" "tcp://127.0.0.1:$port" --output "$work/clear"
said 'encrypted sessions only'
expect 3 "${distill[@]}" "$url" --key "$k/other" --server-key "$k/server.pub" --output "$work/other"
said "does not know this client's key"
expect 3 "${distill[@]}" "$url" --key "$k/ward" --server-key "$k/other.pub" --output "$work/pinned"
said 'does not hold the key'
for output in clear other pinned; do
    [ ! -s "$work/$output/received.jsonl" ] || fail "$output: a rationale came"
done
grep -q "refused a client whose key $(cat "$k/other.pub")" "$work/server.log" || fail "no word of a stranger"

# The job, and a look at the server beside it.
expect 0 "${distill[@]}" "$url" --key "$k/ward" --server-key "$(cat "$k/server.pub")" --output "$work/job"
[ "$(wc -l <"$work/job/rationales.jsonl")" -eq 40 ] || fail "rationales are missing"

expect 0 "$fedcot" status --server "$url" --key "$k/ward" --server-key "$k/server.pub"
grep -q '^protocol' "$work/out" || fail "no status through a session"
expect 3 "$fedcot" status --server "$url" --key "$k/other" --server-key "$k/server.pub"

# Off the list: the next packet is refused. A broken list changes nothing. On the list again: works.
echo "nonsense" >>"$k/clients"
kill -HUP "$server_pid"
wait_for "$work/server.log" 'stays in force'
list other
kill -HUP "$server_pid"
wait_for "$work/server.log" 'read the list of clients again'
expect 3 "${distill[@]}" "$url" --key "$k/ward" --server-key "$k/server.pub" --output "$work/revoked"
said "or no longer"
expect 0 "${distill[@]}" "$url" --key "$k/other" --server-key "$k/server.pub" --output "$work/other"

# No secret in any log.
kill "$server_pid"
wait "$server_pid" || fail "the server's exit status after SIGTERM"
grep -q '^handshakes  *3$' "$work/server.log" || fail "handshakes: $(grep '^handshakes' "$work/server.log")"
for name in server ward other; do
    secret=$(sed -n 's/^secret //p' "$k/$name")
    ! grep -rqF "$secret" "$work" --include='*.log' --include='*.jsonl' --include='*.json' --include=err ||
        fail "the secret key of $name is in a file"
done
echo "job_keys: passed"
