#!/usr/bin/env bash
# A server that runs out of file descriptors, because peers hold connections: half-open ones, of which
# nothing is heard, are closed after a second; others keep their descriptor, and the server serves
# again as soon as they go. It never ends, and keeps what it has promised.
set -euo pipefail
. "$(dirname "$0")/../cli/common.bash"
tiny_model
export OMP_NUM_THREADS=1
free_port 24600
server=tcp://127.0.0.1:$port
(
    ulimit -n 40
    exec "$fedcot" serve --model "$model" --listen "$server" --state "$work/state" >"$work/log" 2>&1
) &
server_pid=$!
pids+=("$server_pid")
wait_for "$work/log" '^ready '

# hold HELLO: 80 connections that send these bytes and then nothing, until $work/release is there
hold() {
    python3 - "$port" "$1" "$work" <<'END' &
import os, socket, sys, time
hello = bytes.fromhex(sys.argv[2])
peers = []
for _ in range(80):
    peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=60)
    peer.sendall(hello)
    peers.append(peer)
open(sys.argv[3] + "/held", "w").write("held\n")
while not os.path.exists(sys.argv[3] + "/release"):
    time.sleep(0.05)
END
    holder=$!
    pids+=("$holder")
    wait_for "$work/held" held
}
release() {
    touch "$work/release"
    wait "$holder" || fail "the connections"
    rm "$work/release" "$work/held"
}

hold "" # not even the greeting of the transport
expect 0 "$fedcot" status --server "$server" --timeout 60
release
hold 0053500000300000 # its greeting
expect 5 "$fedcot" status --server "$server" --timeout 1 # no descriptor is left
release
expect 0 "$fedcot" status --server "$server" --timeout 60
kill "$server_pid"
wait "$server_pid" || fail "the server's exit status"
echo "descriptors: passed"
