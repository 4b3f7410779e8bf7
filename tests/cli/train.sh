#!/usr/bin/env bash
# Training from the command line: 4 steps equal 2 steps, a stop, and 2 more, to the byte; the output
# is a model again; wrong input ends with the documented statuses.
set -euo pipefail
. "$(dirname "$0")/common.bash"
tiny_model
make_data "$work/data" 12 4

flags=(--model "$model" --train "$work/data/train.jsonl" --rationales "$work/rationales.jsonl"
       --tokens-per-step 96 --lr 1e-4)
python3 - "$work" <<'EOF'
import json, sys
with open(sys.argv[1] + "/rationales.jsonl", "w") as out:
    for line in open(sys.argv[1] + "/data/train.jsonl"):
        e = json.loads(line)
        out.write(json.dumps({"id": e["id"], "text": e["rationale"]}) + "\n")
EOF

"$fedcot" train "${flags[@]}" --output "$work/straight" --steps 4 --json >"$work/summary" 2>/dev/null
grep -q '"steps":4' "$work/summary" || fail "the summary does not say 4 steps"
"$fedcot" train "${flags[@]}" --output "$work/resumed" --steps 2 2>/dev/null >/dev/null
"$fedcot" train "${flags[@]}" --output "$work/resumed" --steps 4 --resume 2>/dev/null >/dev/null
cmp "$work/straight/model.safetensors" "$work/resumed/model.safetensors" ||
    fail "resumed training gives other weights"
[ "$(wc -l <"$work/resumed/metrics.jsonl")" -eq 4 ] || fail "metrics.jsonl has not 4 steps"

# Another learning rate is another run.
expect 3 "$fedcot" train "${flags[@]}" --lr 1e-3 --output "$work/resumed" --steps 6 --resume
said 'another model, data or configuration'

# The trained directory is a model: it says so, and answers.
"$fedcot" info --model "$work/straight" >"$work/info" || fail "info does not read the trained model"
grep -q 'safetensors BF16' "$work/info" || fail "the trained model is not in bf16"
"$fedcot" eval --model "$work/straight" --input "$work/data/dev.jsonl" --output "$work/e.jsonl" \
    --dump-prompts 2>/dev/null >/dev/null
[ "$(wc -l <"$work/e.jsonl")" -eq 4 ] || fail "eval has not judged 4 examples"
python3 - "$work/e.jsonl" "$work/data/dev.jsonl" <<'EOF'
import json, sys
questions = {q["id"]: q["question"] for q in map(json.loads, open(sys.argv[2]))}
for line in open(sys.argv[1]):
    e = json.loads(line)
    assert len(e["scores"]) == len(e["lengths"]) == len(e["choice_tokens"]), e
    assert all(len(t) == n for t, n in zip(e["choice_tokens"], e["lengths"])), e
    assert all(s < 0 for s in e["scores"]) and questions[e["id"]] in e["prompt"], e
EOF

expect 2 "$fedcot" train --model "$model"
said '--train'
expect 3 "$fedcot" train --model "$model" --train "$model" --output "$work/x"
expect 7 "$fedcot" train --model "$model" --train "$work/nothing.jsonl" --output "$work/x"
expect 3 "$fedcot" train --model "$work/data/dev.jsonl" --train "$work/data/train.jsonl" \
    --output "$work/x"
echo "train: passed"
