# Shared by the tests of the whole program; sourced with the program's path as $1.
fedcot=$1
work=$(mktemp -d)
pids=()
trap 'set +e; kill -9 "${pids[@]}" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT # an error there would be the status

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# Skips the test unless the real model is there; sets $model.
need_model() {
    model=${FEDCOT_MODEL:-${XDG_CACHE_HOME:-$HOME/.cache}/fedcot/SmolLM2-135M-Instruct.Q4_1.gguf}
    [ -e "$model" ] && return
    echo "skipped: no model at $model (scripts/fetch_model.sh fetches it)"
    exit 77
}

# The model that knows nothing but is whole and small (tests/golden/make_tiny_chat.py).
tiny_model() {
    model=$(dirname "${BASH_SOURCE[0]}")/../golden/tiny-chat
}

# A port of this test's own range that nobody listens on.
free_port() { # BASE
    port=$(($1 + RANDOM % 400))
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
}

# Starts a server on $server and waits until it is ready; sets $server_pid.
start_server() { # LOG [FLAG ...]
    local log=$1
    shift
    "$fedcot" serve --model "$model" --listen "$server" "$@" >"$log" 2>&1 &
    server_pid=$!
    pids+=("$server_pid")
    wait_for "$log" '^ready '
}

# Waits up to five minutes for a line in a file.
wait_for() { # FILE PATTERN
    for _ in $(seq 3000); do
        grep -q "$2" "$1" 2>/dev/null && return
        sleep 0.1
    done
    cat "$1" >&2
    fail "no line '$2' in $1"
}

# Runs a command that must end with this status; its messages go to $work/err.
expect() { # STATUS COMMAND ...
    local wanted=$1 got=0
    shift
    "$@" >"$work/out" 2>"$work/err" || got=$?
    [ "$got" -eq "$wanted" ] || { cat "$work/err" >&2; fail "exit status $got, expected $wanted: $*"; }
}

said() { # PATTERN
    grep -q -- "$1" "$work/err" || { cat "$work/err" >&2; fail "no message like '$1'"; }
}

# A small data set of word problems.
make_data() { # FOLDER TRAIN DEV
    python3 "$(dirname "${BASH_SOURCE[0]}")/../../scripts/make_word_problems.py" \
        --train "$2" --dev "$3" "$1" >/dev/null
}
