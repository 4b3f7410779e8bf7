#!/usr/bin/env bash
# Wrong input through the program: damaged models, data of wrong types, broken job files, folders
# that cannot be written or belong to another job, nonsense for addresses. Each ends with its
# documented status and a message that names file and reason, and tells nothing of private texts.
set -euo pipefail
. "$(dirname "$0")/common.bash"
golden=$(cd "$(dirname "$0")/../golden" && pwd)
fedcot=$(realpath "$fedcot")
cd "$work"
export OMP_NUM_THREADS=1
cp -r "$golden/tiny-chat" m
cat >train.jsonl <<'END'
{"id":"a","question":"SECRET one?","choices":["apple","sky"],"answer":"apple"}
{"id":"b","question":"SECRET two?","choices":["apple","sky"],"answer":"sky"}
{"id":"c","question":"SECRET three?","choices":["apple","sky"],"answer":"sky"}
END
head -n 2 train.jsonl >dev.jsonl
cat >texts.json <<'END'
{"instruct":"{{perturbed}} So","decode":"{{rationale}} So"}
END

# refused STATUS PATTERN COMMAND...
refused() {
    local status=$1 pattern=$2
    shift 2
    expect "$status" "$@"
    said "$pattern"
    ! grep -q SECRET err || fail "private text in a message of: $*"
    ! grep -q 'runtime error\|AddressSanitizer' err || { cat err >&2; fail "sanitizer: $*"; }
}
eval=("$fedcot" eval --input dev.jsonl --output e.jsonl --model)
train=("$fedcot" train --model m --output trained --steps 2 --train)

# ---- models
"${eval[@]}" m >/dev/null 2>&1 || fail "the tiny model does not work at all"
refused 7 'nothing: ' "${eval[@]}" nothing
refused 3 'dev.jsonl: ' "${eval[@]}" dev.jsonl
for size in 0 4 100 1000 200000 305535; do
    rm -rf cut && cp -r m cut && truncate -s "$size" cut/model.safetensors
    refused 3 'cut/model.safetensors: ' "${eval[@]}" cut
done
for size in 0 3 30 500 122431; do
    head -c "$size" "$golden/tiny-llama.gguf" >cut.gguf
    refused 3 'cut.gguf: ' "${eval[@]}" cut.gguf
done
with_config() { # SED
    rm -rf cut && cp -r m cut && sed -i "$1" cut/config.json
}
with_config 's/"hidden_size": 64/"hidden_size": 65/'
refused 3 'cut/' "${eval[@]}" cut
with_config 's/"num_hidden_layers": 2/"num_hidden_layers": 3/'
refused 3 'cut' "${eval[@]}" cut
with_config 's/"vocab_size": 1205/"vocab_size": 1e300/'
refused 3 'cut/config.json: .*vocab_size' "${eval[@]}" cut
with_config 's/"model_type": "qwen2"/"model_type": "mamba"/'
refused 8 'mamba' "${eval[@]}" cut
with_config 's/"hidden_act": "silu"/"hidden_act": "gelu"/'
refused 8 '' "${eval[@]}" cut
rm -rf cut && cp -r m cut && truncate -s 900 cut/tokenizer.json
refused 3 'cut/tokenizer.json: ' "${eval[@]}" cut
rm cut/tokenizer.json
refused 7 'cut/tokenizer.json: ' "${eval[@]}" cut

# ---- data
bad_data() { # PATTERN LINE
    printf '%s\n' "$2" >bad.jsonl
    refused 3 "bad.jsonl: .*$1" "${train[@]}" bad.jsonl
    refused 3 "bad.jsonl: .*$1" "$fedcot" eval --model m --input bad.jsonl --output e.jsonl
}
bad_data 'line 1' '{"id":"a","question":"SECRET'
bad_data 'question' '{"id":"a","question":["SECRET"],"choices":["x","y"],"answer":"x"}'
bad_data 'choices' '{"id":"a","question":"SECRET","choices":"SECRET","answer":"x"}'
bad_data 'choices' '{"id":"a","question":"SECRET","choices":["x",3],"answer":"x"}'
bad_data 'answer' '{"id":"a","question":"SECRET","choices":["x","y"],"answer":"SECRET"}'
bad_data 'answer' '{"id":"a","question":"SECRET","choices":["x","y"]}'
bad_data 'id' '{"id":7.5,"question":"SECRET","choices":["x","y"],"answer":"x"}'
bad_data '' "$(sed p train.jsonl)"
bad_data 'UTF-8' $'{"id":"a","question":"SECRET \xff","choices":["x","y"],"answer":"x"}'
: >bad.jsonl
refused 3 'bad.jsonl: ' "${train[@]}" bad.jsonl
refused 3 'expected a regular file' "${train[@]}" m
printf '{"id":"a","prompt":3}\n' >bad.jsonl
refused 3 'bad.jsonl: line 1.*prompt' "$fedcot" generate --model m --raw --input bad.jsonl --output r.jsonl
python3 -c 'print("{\"prompt\":\"" + "SECRET " * 2000 + "\"}")' >bad.jsonl
refused 2 'bad.jsonl: prompt 1: .*context' "$fedcot" generate --model m --raw --input bad.jsonl --output r.jsonl
: >none.jsonl
"$fedcot" generate --model m --raw --input none.jsonl --output r.jsonl >/dev/null 2>&1 ||
    fail "no prompts at all"
[ -f r.jsonl ] && [ ! -s r.jsonl ] || fail "no prompts, and yet results"

# ---- rationales
printf '{"id":"x","text":"SECRET"}\n' >r.jsonl
refused 3 'r.jsonl: none of its 1 ids' "${train[@]}" train.jsonl --rationales r.jsonl
refused 3 'r.jsonl: none of its 1 ids' "$fedcot" distill --model m --train train.jsonl \
    --dev dev.jsonl --rationales r.jsonl --output trained
printf '{"id":"a","text":"x"}\n{"id":true,"text":"SECRET"}\n' >r.jsonl
refused 3 'r.jsonl: line 2' "${train[@]}" train.jsonl --rationales r.jsonl
printf '{"id":"a","text":"because"}\n{"id":"x","text":"y"}\n' >r.jsonl # some are enough
"${train[@]}" train.jsonl --rationales r.jsonl >/dev/null 2>err || { cat err >&2; fail "train"; }

# ---- flags and job files
refused 2 '--lr' "${train[@]}" train.jsonl --lr x
refused 2 '--epsilon' "$fedcot" perturb --model m --input train.jsonl --output p.jsonl
refused 2 '--max-words' "$fedcot" perturb --model m --input train.jsonl --output p.jsonl --epsilon 6 --pad
refused 4 'budget' "$fedcot" perturb --model m --input train.jsonl --output p.jsonl --epsilon 6 --budget 1
[ ! -e p.jsonl ] || fail "perturbed beyond the budget"
for job in '{' '[1]' '{"train":{"lr":"much"}}' '{"train":{"templates":3}}' '{"epochs":-1}' '{"config":"x"}'; do
    printf '%s' "$job" >job.json
    got=0
    "${train[@]}" train.jsonl --config job.json >/dev/null 2>err || got=$?
    [ "$got" -eq 2 ] || [ "$got" -eq 3 ] || fail "job file $job: exit status $got"
    said 'job.json'
done
printf '{"predict":"{{perturbed}}"}' >bad.json
refused 3 'bad.json: .*perturbed' "${train[@]}" train.jsonl --templates bad.json
printf '{"instruct":"{{question}} {{perturbed}}"}' >bad.json # a raw field in what leaves
refused 3 'bad.json: .*question' "$fedcot" serve --model m --templates bad.json

# ---- output
printf x >file
refused 7 'file' "$fedcot" train --model m --train train.jsonl --output file/x --steps 1
refused 7 'nowhere/e.jsonl' "$fedcot" eval --model m --input dev.jsonl --output nowhere/e.jsonl
if [ "$(id -u)" -ne 0 ]; then
    mkdir locked && chmod 500 locked
    refused 7 'locked' "$fedcot" train --model m --train train.jsonl --output locked/x --steps 1
fi

# ---- checkpoints: more text than tokens, damaged, of another run
"${train[@]}" train.jsonl >/dev/null 2>&1
truncate -s 1000 trained/trainer.state
refused 3 'trained/trainer.state: ' "${train[@]}" train.jsonl --resume
"${train[@]}" train.jsonl --max-length 1000000 --tokens-per-batch 16 >/dev/null 2>err ||
    { cat err >&2; fail "--max-length beyond the model's context"; }

# ---- the job
free_port 23000
server=tcp://127.0.0.1:$port
distill=("$fedcot" distill --model m --dev dev.jsonl --templates texts.json
         --rationale-tokens 8 --timeout 20 --tokens-per-step 64)
for url in nonsense tcp:// tcp://127.0.0.1 tcp://127.0.0.1:x http://127.0.0.1:80 tcp://127.0.0.1:99999; do
    got=0
    "${distill[@]}" --train train.jsonl --epsilon 6 --output bad --server "$url" >/dev/null 2>err || got=$?
    [ "$got" -eq 2 ] || [ "$got" -eq 8 ] || { cat err >&2; fail "$url: exit status $got"; }
    said "$url"
done
[ ! -e bad ] || fail "a job began, and was charged for, with an address that cannot be"
refused 8 'loopback' "${distill[@]}" --train train.jsonl --epsilon 6 --output bad --server tcp://192.0.2.1:80

model=m
start_server server.log --templates texts.json
job=("${distill[@]}" --server "$server")
"${job[@]}" --train train.jsonl --epsilon 6 --output job --json >summary.out 2>err ||
    { cat err >&2; fail "the tiny job"; }
grep -q 'label only' err || fail "--json does not show the table on standard error"
[ "$(cat summary.out)" = "$(cat job/summary.json)" ] || fail "summary.json is not the summary"
python3 - <<'END'
import json
s = json.load(open("job/summary.json"))
assert s["accuracy"]["FedCoT"]["total"] == 2 and s["texts"] == 3 and s["refused"] == 0, s
assert len(open("job/rationales.jsonl").readlines()) == 3 # some of which may be blank
assert s["server_model"].startswith("qwen2 bf16 ") and s["mechanism"] and s["bytes_sent"] > 0, s
END
cp -r job again # a copy of the ledger too, and only the copy is used from here on
"$fedcot" ledger again/client.ledger --head again/ledger.head --moved >/dev/null || fail "the copied ledger"
"${job[@]}" --train train.jsonl --epsilon 6 --output again >/dev/null 2>err || { cat err >&2; fail "again"; }
cmp job/rationales.jsonl again/rationales.jsonl || fail "a job that was complete changed its texts"

# Another job in its folder: refused before anything is overwritten or charged.
find job -type f -exec sha256sum {} + | sort >before
other() { # PATTERN FLAGS
    local pattern=$1
    shift
    refused 3 "job/.*$pattern.*choose another --output" "${job[@]}" --output job "$@"
    find job -type f -exec sha256sum {} + | sort | cmp - before || fail "changed by a refused job: $*"
}
head -n 2 train.jsonl >fewer.jsonl
sed 's/three/four/' train.jsonl >changed.jsonl
sed 's/ So/ Thus/g' texts.json >thus.json
other '' --train fewer.jsonl --epsilon 6
other 'training data' --train changed.jsonl --epsilon 6
other 'epsilon' --train train.jsonl --epsilon 7
other 'epsilon' --train train.jsonl --epsilon 6 --max-words 4
other 'templates' --train train.jsonl --epsilon 6 --templates thus.json
other 'model' --train train.jsonl --epsilon 6 --dtype fp32
other 'seed' --train train.jsonl --epsilon 6 --seed 1
other 'rationale-tokens' --train train.jsonl --epsilon 6 --rationale-tokens 9
other 'decode' --train train.jsonl --epsilon 6 --no-decode
# Another server, once it is asked: here, for a rationale that is missing.
kill "$server_pid" && wait "$server_pid" || true
start_server server2.log --templates thus.json
sed -i 1d again/received.jsonl again/rationales.jsonl
refused 3 "server's model" "${job[@]}" --train train.jsonl --epsilon 6 --output again
# Texts that are nobody's.
rm again/identity.json
refused 3 'identity.json is missing' "${job[@]}" --train train.jsonl --epsilon 6 --output again

# A server that refuses every prompt: no rationales, so no result that looks like one.
kill "$server_pid" && wait "$server_pid" || true
python3 -c 'print("{\"instruct\":\"" + "much " * 2000 + "{{perturbed}}\"}")' >long.json
start_server server3.log --templates long.json # longer than the model's context
refused 3 'refused all 3 prompts' "${job[@]}" --train train.jsonl --epsilon 6 --output all
# Two tasks in one job.
printf '{"id":"a","question":"SECRET?","answer":"4"}\n' >free.jsonl
refused 3 'two tasks' "${job[@]}" --train train.jsonl --dev free.jsonl --epsilon 6 --output free
kill "$server_pid" && wait "$server_pid" || true

# Free answers, unprotected, and inference only; --rationales with --unprotected.
start_server server4.log --templates texts.json --task free
printf '{"id":"%s","question":"SECRET %s?","answer":"%s"}\n' a one 1 b two 2 >free.jsonl
"${job[@]}" --train free.jsonl --dev free.jsonl --epsilon 6 --output free --unprotected >free.out 2>err ||
    { cat err >&2; fail "free answers"; }
grep -q '^unprotected ' free.out || fail "no unprotected baseline"
"${job[@]}" --train free.jsonl --dev free.jsonl --epsilon 6 --output only --inference-only >only.out 2>err ||
    { cat err >&2; fail "inference only"; }
[ "$(wc -l <only/rationales.jsonl)" -eq 2 ] || fail "inference only: not 2 rationales"
"${job[@]}" --train free.jsonl --dev free.jsonl --rationales only/rationales.jsonl --unprotected \
    --output two >/dev/null 2>err || { cat err >&2; fail "--rationales with --unprotected"; }
kill "$server_pid" && wait "$server_pid" || true
! grep -l SECRET server*.log || fail "private text in a server's log"
echo "hostile: passed"
