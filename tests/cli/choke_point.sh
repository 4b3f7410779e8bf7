#!/usr/bin/env bash
# One way out: only the objects named in choke_point.py can send, and only privacy/ can make what is
# sent. Then objects with one such call too many, made here, must all be found.
set -euo pipefail
. "$(dirname "$0")/common.bash"
check=$(dirname "$0")/choke_point.py
build=$(dirname "$fedcot")
command -v nm >/dev/null || { echo "skipped: no nm"; exit 77; }
[ -d "$build/CMakeFiles/fc_net.dir" ] || { echo "skipped: no object files beside $fedcot"; exit 77; }
folders=("$build"/CMakeFiles/fc_*.dir "$build"/CMakeFiles/fedcot*.dir)
python3 "$check" "${folders[@]}" || fail "an object that should not can send, or make what is sent"

# The type cannot be made by who only sees its header: it is incomplete there.
cc=$(command -v "${CC:-cc}" || command -v gcc) || { echo "skipped: no compiler for the faults"; exit 77; }
root=$(dirname "$0")/../..
mkdir -p "$work/seed.dir/cli"
calls=(nn_send nn_sendmsg send sendto sendmsg write writev connect socket system popen syscall
       fc_perturbed_make fc_perturbed_unprotected fc_client_submit fc_exchange_ask)
for call in "${calls[@]}"; do
    printf 'int %s(void);\nint leak(void);\nint leak(void) { return %s(); }\n' "$call" "$call" >"$work/leak.c"
    "$cc" -w -fno-builtin -c "$work/leak.c" -o "$work/seed.dir/cli/leak_$call.c.o"
done
if python3 "$check" "${folders[@]}" "$work/seed.dir" >"$work/out"; then fail "no seeded call was found"; fi
for call in "${calls[@]}"; do
    grep -q "cli/leak_$call.c.o calls $call\$" "$work/out" || { cat "$work/out" >&2; fail "$call was not found"; }
done
[ "$(grep -c WRONG "$work/out")" = ${#calls[@]} ] || { cat "$work/out" >&2; fail "other findings"; }
if python3 "$check" "$work" >/dev/null; then fail "an empty folder passes"; fi

cat >"$work/forged.c" <<'FORGED'
#include "net/client.h"
#include "privacy/perturbed.h"
static const struct fc_perturbed forged = {0};
enum fc_code leak(struct fc_client *c);
enum fc_code leak(struct fc_client *c) { return fc_client_submit(c, 0, 0, &forged, 0); }
FORGED
sed 's/&forged/"a raw prompt"/; /^static/d' "$work/forged.c" >"$work/raw.c"
sed 's/^static.*/const struct fc_perturbed *made;/; s/&forged/made/' "$work/forged.c" >"$work/right.c"
"$cc" -I "$root" -Werror -c "$work/right.c" -o "$work/right.o" || fail "the right call does not compile"
for wrong in forged raw; do
    if "$cc" -I "$root" -Werror -c "$work/$wrong.c" -o "$work/$wrong.o" 2>/dev/null; then
        fail "the compiler takes a $wrong prompt"
    fi
done
echo "${#calls[@]} seeded calls found; a forged type and a raw text do not compile"
