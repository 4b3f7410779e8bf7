#!/usr/bin/env bash
# A job with private text in memory that crashes leaves no core, and nobody but root can read its
# memory, not even another process of the same user. A `sleep` beside it shows that both would be
# seen here.
set -euo pipefail
. "$(dirname "$0")/common.bash"
tiny_model
fedcot=$(realpath "$fedcot") model=$(realpath "$model") # the job works in another folder
make_data "$work" 4 2
free_port 22000
ulimit -c unlimited 2>/dev/null || true # a hard limit of 0 is found by the control below

# As root, under another user's id, because root may read everything.
as_user=()
if [ "$(id -u)" = 0 ]; then
    command -v setpriv >/dev/null || { echo "skipped: no setpriv"; exit 77; }
    as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    chmod 755 "$work"
    mkdir "$work/own"
    chown 65534:65534 "$work/own"
    "${as_user[@]}" "$fedcot" --version >/dev/null 2>&1 && "${as_user[@]}" test -r "$model/config.json" || {
        echo "skipped: another user cannot run $fedcot"
        exit 77
    }
else
    mkdir "$work/own"
fi
chmod 644 "$work"/*.jsonl

python3 - "$work" "${#as_user[@]}" "${as_user[@]}" "$fedcot" distill --model "$model" \
    --server "tcp://127.0.0.1:$port" --train "$work/train.jsonl" --dev "$work/dev.jsonl" --epsilon 8 \
    --output "$work/own/out" --timeout 120 <<'CRASH'
import glob, os, signal, subprocess, sys, time

work, n = sys.argv[1], int(sys.argv[2])
as_user, job = sys.argv[3:3 + n], sys.argv[3 + n:]
own = work + "/own"

def crash(command, ready):
    """Status of a command that gets SIGSEGV once ready(); and what another process read of it."""
    with open(work + "/err", "wb") as err:
        p = subprocess.Popen(as_user + command, cwd=own, stdout=err, stderr=err)
    deadline = time.time() + 300
    while not ready() and p.poll() is None and time.time() < deadline:
        time.sleep(0.05)
    assert p.poll() is None, "ended early: " + open(work + "/err").read()
    reader = subprocess.run(as_user + ["cat", "/proc/%d/environ" % p.pid], capture_output=True)
    os.kill(p.pid, signal.SIGSEGV)
    return os.waitpid(p.pid, 0)[1], reader.stdout

def dumped(status):
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSEGV, status
    return os.WCOREDUMP(status)

started = time.time()
status, seen = crash(["sleep", "100"], lambda: time.time() > started + 0.5)
core_works, reading_works = dumped(status), bool(seen)
for core in glob.glob(own + "/core*"):
    os.unlink(core)

status, seen = crash(job, lambda: "privacy:" in open(work + "/err").read())
if not os.WIFSIGNALED(status):
    print("skipped: a sanitizer handles SIGSEGV itself")
    sys.exit(77)
assert not dumped(status), "the job dumped core"
assert not glob.glob(own + "/core*") and not glob.glob(own + "/out/core*"), "a core file"
assert not seen, "another process of the same user can read the job's memory"
modes = {oct(os.stat(f).st_mode & 0o777) for f in glob.glob(own + "/out/*")}
assert modes and modes <= {"0o600", "0o700"}, "others can read the job's files: %s" % modes
print("core files: %s; reading: %s" % ("none left" if core_works else "not to be tested here",
                                       "refused" if reading_works else "not to be tested here"))
if not core_works and not reading_works:
    sys.exit(77)
CRASH
