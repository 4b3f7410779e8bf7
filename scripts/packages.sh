#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that the build, the tests and the quickstart need, if any
# of them is missing. Needs root (or sudo) only then.
set -euo pipefail

packages=(
    build-essential cmake pkg-config                                # build
    libdnnl-dev libcjson-dev libnanomsg-dev libsodium-dev libpcre2-dev  # libraries
    libcmocka-dev tcpdump                                           # tests
    python3 python3-pip unzip ca-certificates                       # the quickstart's model and data
)

missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
    [ "$status" = "install ok installed" ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

echo "installing: ${missing[*]}"
if [ "$(id -u)" -eq 0 ]; then
    run=()
elif command -v sudo >/dev/null; then
    run=(sudo)
else
    echo "packages.sh: these packages are missing and this user cannot install them:" >&2
    echo "  apt-get install ${missing[*]}" >&2
    exit 1
fi
"${run[@]}" apt-get update -q
DEBIAN_FRONTEND=noninteractive "${run[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}"
