#!/usr/bin/env bash
# What a user meets first: help of every command, the version, wrong words and their exit statuses.
set -euo pipefail
fedcot=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# expect STATUS TEXT COMMAND...: the exit status, and a text on standard error
expect() {
    local status=$1 text=$2 got=0
    shift 2
    "$@" >"$folder/out" 2>"$folder/err" || got=$?
    [ "$got" = "$status" ] || fail "$* ended with $got, expected $status: $(cat "$folder/err")"
    grep -qF -- "$text" "$folder/err" || fail "$* did not say \"$text\": $(cat "$folder/err")"
    [ ! -s "$folder/out" ] || fail "$* wrote to standard output"
}

"$fedcot" --version | grep -qE '^fedcot [0-9]+\.[0-9]+\.[0-9]+$' || fail "version"
"$fedcot" --help >"$folder/help" 2>"$folder/err"
[ ! -s "$folder/err" ] || fail "--help wrote to standard error"
cmp -s "$folder/help" <("$fedcot" help) || fail "help and --help differ"
grep -q '^  4  budget' "$folder/help" || fail "help does not list the exit statuses"

expect 2 "a command is missing" "$fedcot"
expect 2 "unknown command nonsense" "$fedcot" nonsense
expect 2 "unknown command nonsense" "$fedcot" help nonsense

commands=$(sed -n '/^Commands:/,/^$/p' "$folder/help" | sed -n 's/^  \([a-z][a-z]*\) .*/\1/p' | grep -vx help) ||
    fail "help lists no commands"
for command in $commands; do
    "$fedcot" help "$command" >"$folder/one" 2>"$folder/err" || fail "help $command"
    [ ! -s "$folder/err" ] || fail "help $command wrote to standard error"
    cmp -s "$folder/one" <("$fedcot" "$command" --help) || fail "help $command and $command --help differ"
    for flag in --config --json --help 'Exit status:'; do
        grep -qF -- "$flag" "$folder/one" || fail "help $command does not mention $flag"
    done
    ! grep -q '(null)' "$folder/one" || fail "help $command prints (null)"
    if LC_ALL=C awk 'length > 80' "$folder/one" | grep -q .; then
        fail "help $command has lines of more than 80 columns"
    fi
    expect 2 "unknown flag --jsno; did you mean --json?" "$fedcot" "$command" --jsno
    expect 2 "Try 'fedcot $command --help'." "$fedcot" "$command" --jsno
    expect 2 "--config needs a value" "$fedcot" "$command" --config
    expect 7 "cannot open" "$fedcot" "$command" --config "$folder/none.json"
    echo '{"modle": "m"}' >"$folder/job.json"
    expect 2 "unknown key modle" "$fedcot" "$command" --config "$folder/job.json"
    echo '{"model": ' >"$folder/job.json"
    expect 3 "not valid JSON" "$fedcot" "$command" --config "$folder/job.json"
done

# A file that ends early, as on a full disk, is an error and not a short answer.
if [ -w /dev/full ]; then
    status=0
    "$fedcot" --help >/dev/full 2>"$folder/err" || status=$?
    [ "$status" = 7 ] || fail "--help to a full disk ended with $status"
fi
echo "commands: $(echo $commands)"
