#!/usr/bin/env bash
# The ledger as its owner sees it: what `fedcot ledger` prints, and what becomes of copies, of old
# states put back, of damage, and of ledgers that do not belong to the results.
set -euo pipefail
. "$(dirname "$0")/common.bash"
tiny_model
make_data "$work" 6 1

perturb() { # OUTPUT [FLAG ...]
    local output=$1
    shift
    "$fedcot" perturb --model "$model" --input "$work/train.jsonl" --output "$output" --epsilon 8 "$@"
}
field() { # NAME < JSON
    python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}

# Nothing private on standard output unless --show asks for it.
perturb "$work/p.jsonl" >"$work/stdout" 2>"$work/stderr"
python3 - "$work" <<'SCAN'
import json, sys
said = open(sys.argv[1] + "/stdout").read() + open(sys.argv[1] + "/stderr").read()
for line in open(sys.argv[1] + "/train.jsonl"):
    assert json.loads(line)["question"][:30] not in said, "a raw question was printed"
SCAN
ledger=$work/p.jsonl.ledger head=$work/p.jsonl.head
[ -s "$head" ] || fail "no head beside the results"

"$fedcot" ledger "$ledger" --head "$head" >"$work/out"
grep -q 'in all .* 6 ' "$work/out" || fail "not 6 documents: $(cat "$work/out")"
"$fedcot" ledger "$ledger" --json >"$work/json"
[ "$(field documents <"$work/json")" = 6 ] && [ "$(field in_place <"$work/json")" = True ] ||
    fail "the summary: $(cat "$work/json")"
units=$(field units <"$work/json")
python3 - "$work/json" <<'CHECK'
import json, sys
s = json.load(open(sys.argv[1]))
m = s["mechanisms"]
assert len(m) == 1 and m[0]["units"] == s["units"] > 50 and m[0]["documents"] == 6
assert s["units"] * 7.99 < s["epsilon_pure"] <= s["units"] * 8.0001
assert 0 < s["rho"] and s["epsilon"] <= s["epsilon_zcdp"] and len(s["head"]) == 64
CHECK

# Looking changes nothing, and needs what a job needs.
cp "$ledger" "$work/before"
"$fedcot" ledger "$ledger" >/dev/null
cmp "$ledger" "$work/before" || fail "looking changed the ledger"
expect 7 "$fedcot" ledger "$work/none"
[ ! -e "$work/none" ] || fail "looking made a ledger"
expect 2 "$fedcot" ledger

# An old state put back into the same file.
cp "$head" "$work/head.before"
perturb "$work/p.jsonl" --stay 0.6 >/dev/null 2>&1
[ "$("$fedcot" ledger "$ledger" --json | field documents)" = 12 ] || fail "not 12 documents"
cp "$ledger" "$work/after"
cp "$head" "$work/head.after"
cat "$work/before" >"$ledger"
expect 3 perturb "$work/p.jsonl"
said 'an old copy was put back'
expect 3 "$fedcot" ledger "$ledger" --head "$head"
cat "$work/after" >"$ledger"
perturb "$work/p.jsonl" >/dev/null 2>&1 || fail "the right ledger is refused"

# A copy, until its owner accepts it; and results that another ledger belongs to.
mkdir "$work/other"
cp "$ledger" "$ledger.key" "$work/other"
expect 3 perturb "$work/q.jsonl" --ledger "$work/other/p.jsonl.ledger"
said 'this is a copy'
"$fedcot" ledger "$work/other/p.jsonl.ledger" | grep -q 'this is a copy' || fail "a copy is not shown"
"$fedcot" ledger "$work/other/p.jsonl.ledger" --moved >/dev/null
perturb "$work/q.jsonl" --ledger "$work/other/p.jsonl.ledger" >/dev/null 2>&1 || fail "not accepted"
cmp "$work/p.jsonl" "$work/q.jsonl" || fail "the accepted ledger gives other texts"
perturb "$work/p.jsonl" --stay 0.7 >/dev/null 2>&1
expect 3 perturb "$work/p.jsonl" --ledger "$work/other/p.jsonl.ledger"
said 'ledger'
"$fedcot" ledger "$work/other/p.jsonl.ledger" --moved --head "$head" >/dev/null
perturb "$work/p.jsonl" --ledger "$work/other/p.jsonl.ledger" >/dev/null 2>&1 || fail "head not accepted"

# Damage, and another key.
python3 - "$ledger" <<'DAMAGE'
import sys
b = bytearray(open(sys.argv[1], "rb").read())
at = b.index(b'"draws":') + 8
b[at] = ord("1") if b[at] != ord("1") else ord("2")
open(sys.argv[1], "r+b").write(b)
DAMAGE
expect 3 "$fedcot" ledger "$ledger"
said 'checksum'
head -c 32 /dev/urandom >"$work/other/p.jsonl.ledger.key"
expect 3 "$fedcot" ledger "$work/other/p.jsonl.ledger"
chmod 644 "$work/other/p.jsonl.ledger.key"
expect 3 "$fedcot" ledger "$work/other/p.jsonl.ledger"
said 'others can read it'
echo "$units units charged, shown and verified"
