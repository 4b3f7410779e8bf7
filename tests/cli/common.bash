# Shared by the tests of the whole program; sourced with the program's path as $1.
fedcot=$1
work=$(mktemp -d)
pids=()
trap 'kill -9 "${pids[@]}" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT

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

# A whole model that computes in milliseconds: random weights of tests/golden with a tokenizer of
# one token for each byte. Its answers mean nothing.
make_tiny_model() { # FOLDER
    local golden
    golden=$(dirname "${BASH_SOURCE[0]}")/../golden
    mkdir -p "$1"
    cp "$golden"/tiny-llama/{config.json,generation_config.json,model.safetensors} "$1"
    python3 - "$1/tokenizer.json" <<'END'
import json, sys
special = ["<pad>", "<s>", "</s>"]
kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
letters = [chr(b) for b in kept] + [chr(256 + i) for i in range(256 - len(kept))]
level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
json.dump({
    "version": "1.0", "normalizer": None, "post_processor": None, "pre_tokenizer": level,
    "decoder": level,
    "added_tokens": [{"id": i, "content": t, "special": True, "normalized": False, "lstrip": False,
                      "rstrip": False, "single_word": False} for i, t in enumerate(special)],
    "model": {"type": "BPE", "merges": [],
              "vocab": {t: i for i, t in enumerate(special + letters)}}}, open(sys.argv[1], "w"))
END
}
