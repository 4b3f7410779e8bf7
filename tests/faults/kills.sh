#!/usr/bin/env bash
# Clients and servers killed at any moment (kills.py): a few jobs; FEDCOT_TEST_LONG=1 runs 200 with
# the client killed, 50 with the server, 50 with both.
set -euo pipefail
counts=(--client 3 --server 2 --both 1)
[ -z "${FEDCOT_TEST_SHORT:-}" ] || counts=(--client 1 --server 1 --both 0)
[ -z "${FEDCOT_TEST_LONG:-}" ] || counts=(--client 200 --server 50 --both 50)
exec python3 "$(dirname "$0")/kills.py" "$1" "${counts[@]}"
