#!/usr/bin/env bash
# A full disk, a folder that may not be written, too few file descriptors, too little memory: a clear
# error that names what is missing, no private text, and a job that goes on once there is room.
set -euo pipefail
. "$(dirname "$0")/../cli/common.bash"
tiny_model
fedcot=$(realpath "$fedcot") model=$(realpath "$model")
make_data "$work" 24 2
skipped=()

perturb=("$fedcot" perturb --model "$model" --input "$work/train.jsonl" --epsilon 8 --threads 1)
silent() { # nothing private was said
    python3 - "$work" <<'SCAN'
import json, sys
said = open(sys.argv[1] + "/err").read() + open(sys.argv[1] + "/out").read()
for line in open(sys.argv[1] + "/train.jsonl"):
    words = json.loads(line)["question"].split()
    for i in range(len(words) - 3):
        assert " ".join(words[i:i + 4]) not in said, "private text was printed"
SCAN
}
failed() { # STATUS PATTERN OUTPUT [PREFIX COMMAND ...]
    local status=$1 pattern=$2 output=$3
    shift 3
    expect "$status" "$@" "${perturb[@]}" --output "$output"
    said "$pattern"
    silent
}

# A disk that is full before the job is done, and then grows.
if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
    cat >"$work/full.sh" <<'FULL'
set -eu
mkdir "$1/small"
mount -t tmpfs -o size=16k tmpfs "$1/small" || exit 77
shift
status=0
"$@" || status=$?
[ "$status" = 7 ] || exit 99
"${MOUNT:-mount}" -o remount,size=4m "$SMALL"
"$@" >&2
ls -A "$SMALL" >&2
FULL
    status=0
    SMALL="$work/small" unshare -m bash "$work/full.sh" "$work" "${perturb[@]}" --output "$work/small/p.jsonl" \
        >"$work/out" 2>"$work/err" || status=$?
    if [ "$status" = 77 ]; then
        skipped+=("full disk: no tmpfs can be mounted")
    else
        [ "$status" = 0 ] || { cat "$work/err" >&2; fail "full disk: status $status"; }
        said 'cannot write.*No space left on device'
        said 'p.jsonl.ledger.key'
        if grep -q '\.tmp\.[0-9]' "$work/err"; then fail "full disk: a temporary file is left"; fi
        silent
    fi
else
    skipped+=("full disk: needs root and mount namespaces")
fi

# A folder that may not be written.
mkdir "$work/closed"
if [ "$(id -u)" = 0 ]; then
    if unshare -m true 2>/dev/null; then
        cat >"$work/closed.sh" <<'CLOSED'
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 77
shift
exec "$@"
CLOSED
        if unshare -m bash "$work/closed.sh" "$work/closed" true 2>/dev/null; then
            failed 7 'closed/p.jsonl.ledger: cannot open the ledger: Read-only file system' \
                "$work/closed/p.jsonl" unshare -m bash "$work/closed.sh" "$work/closed"
        else
            skipped+=("read-only folder: cannot mount")
        fi
    fi
else
    chmod 500 "$work/closed"
    failed 7 'closed/p.jsonl.ledger: cannot open the ledger: Permission denied' "$work/closed/p.jsonl"
fi
failed 7 'none/p.jsonl.ledger: cannot open the ledger: No such file' "$work/none/p.jsonl"

# Too few descriptors, from what the loader itself needs on: a sanitizer's needs more.
least=4
while [ "$least" -lt 32 ] && ! prlimit --nofile="$least" "$fedcot" --version >/dev/null 2>&1; do
    least=$((least + 1))
done
failed 7 'Too many open files' "$work/d.jsonl" prlimit --nofile="$least"
"${perturb[@]}" --output "$work/d.jsonl" >/dev/null 2>&1 || fail "after too few descriptors"

# Too little memory, from nothing to nearly enough: an error of ours, never a signal, or success.
# Sanitizers reserve terabytes and cannot live under such a limit.
needs() { # KIB: whether --version runs within
    prlimit --as=$(($1 * 1024)) "$fedcot" --version >/dev/null 2>&1
}
least=16384
while [ "$least" -lt 4194304 ] && ! needs "$least"; do least=$((least + least / 4)); done
if needs "$least"; then
    ended=
    for room in 0 4 8 16 24 32 48 64 96 128 192; do
        [ -n "${FEDCOT_TEST_SHORT:-}" ] && [ $((room % 16)) != 0 ] && continue
        rm -f "$work"/m.jsonl*
        status=0
        OMP_NUM_THREADS=1 prlimit --as=$(((least + room * 1024) * 1024)) "${perturb[@]}" \
            --output "$work/m.jsonl" >"$work/out" 2>"$work/err" || status=$?
        case $status in
        0) ;;
        6) said 'memory' ;;
        7) said 'Cannot allocate memory' ;;
        *) cat "$work/err" >&2; fail "memory +$room MiB: status $status" ;;
        esac
        silent
        ended="$ended $status"
    done
    "${perturb[@]}" --output "$work/m.jsonl" >/dev/null 2>&1 || fail "after too little memory"
    echo "memory: ended with$ended"
else
    skipped+=("memory: this build does not run within 4 GiB")
fi
[ ${#skipped[@]} = 0 ] || printf 'not tested: %s\n' "${skipped[@]}"
