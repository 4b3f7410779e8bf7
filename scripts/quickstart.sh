#!/usr/bin/env bash
# The main job on a fresh Debian or Ubuntu machine: installs packages, builds, fetches a small
# language model, starts a server with it, and distils it on word problems made for the purpose.
#
#   FEDCOT_MODEL=PATH      another model (GGUF file or Hugging Face directory), for both sides
#   FEDCOT_OUTPUT=DIR      where results go (default: build/quickstart)
#   FEDCOT_EPSILON=E       privacy of each word (default: 8)
set -euo pipefail
cd "$(dirname "$0")/.."

output=${FEDCOT_OUTPUT:-build/quickstart}
epsilon=${FEDCOT_EPSILON:-8}
fedcot=build/release/fedcot

./scripts/packages.sh
cmake --preset release -DBUILD_TESTING=OFF >/dev/null
cmake --build --preset release --parallel "$(nproc)"
model=$(./scripts/fetch_model.sh)

# A run starts afresh in our own folder; in a folder of the user's nothing is ever deleted.
[ -n "${FEDCOT_OUTPUT:-}" ] || rm -rf "$output"
mkdir -p "$output"
python3 scripts/make_word_problems.py --train 240 --dev 200 "$output/data"

# The first free port of a few: nothing else needs to be configured.
port=7450
while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
server=tcp://127.0.0.1:$port

# Server and client share the cores here: threads that wait sleep at once (see cli/openmp.h).
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-100}
echo "starting the server on $server"
"$fedcot" serve --model "$model" --listen "$server" >"$output/server.log" 2>&1 &
pid=$!
trap 'kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true' EXIT
for _ in $(seq 600); do
    grep -q '^ready ' "$output/server.log" && break
    kill -0 "$pid" 2>/dev/null || { cat "$output/server.log" >&2; exit 1; }
    sleep 0.1
done
grep -q '^ready ' "$output/server.log" || { echo "the server is not ready after a minute: $output/server.log" >&2; exit 5; }

"$fedcot" distill --model "$model" --server "$server" \
    --train "$output/data/train.jsonl" --dev "$output/data/dev.jsonl" \
    --epsilon "$epsilon" --output "$output" --examples 5 \
    --rationale-tokens 40 --epochs 1 --lr 1e-4 --tokens-per-step 512 --schedule linear
