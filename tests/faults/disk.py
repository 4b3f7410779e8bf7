#!/usr/bin/env python3
"""Jobs whose k-th call to the disk fails, or is their last, end with a clear error and go on.

    disk.py FEDCOT TOOL_DISK MODEL WORK KIND...      KIND: as in tool_disk.c

For each KIND and a number of k: the job runs with the fault, then once more without. The first run
must be right or end with status 7, a message that names a file, and no private text; the second
must end well and leave what an undisturbed job leaves:
  perturb   every document charged once, in a ledger that continues what the first run left; the
            output is what the ledger holds
  train     the weights of the undisturbed run; --resume goes on from its last checkpoint
  distill   the bytes of perturbed prompts, rationales and weights of the undisturbed job, which
            paid for the texts; nothing is charged again
FEDCOT_TEST_LONG=1 takes every k, FEDCOT_TEST_SHORT=1 two, else a few, spread over the job."""
import json
import os
import shutil
import socket
import subprocess
import sys
import time

FEDCOT, TOOL, MODEL, WORK = sys.argv[1:5]
KINDS = sys.argv[5:]
N = 4
DATA = [json.loads(line) for line in open(WORK + "/train.jsonl")]
RESULTS = ["perturbed.jsonl", "received.jsonl", "rationales.jsonl"]


def private_words():
    for example in DATA:
        words = example["question"].split()
        for i in range(len(words) - 3):
            yield " ".join(words[i:i + 4])


PRIVATE = set(private_words())


def run(command, fault=None):
    """(status, stderr, calls to the disk)."""
    count = WORK + "/count"
    if fault:
        command = [TOOL, fault[0], str(fault[1]), count] + command
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=600)
    said = done.stdout + done.stderr
    assert not any(w in said for w in PRIVATE), "private text was printed:\n" + said
    calls = int(open(count).read()) if fault and done.returncode != 77 else 0
    return done.returncode, done.stderr, calls


def lines(path):
    with open(path, "rb") as f:
        return sorted(f.read().splitlines())


def charged(ledger, head):
    out = subprocess.run([FEDCOT, "ledger", ledger, "--head", head, "--json"], capture_output=True,
                         text=True)
    assert out.returncode == 0, out.stderr
    summary = json.loads(out.stdout)
    return summary["documents"], summary["units"]


class Perturb:
    name, few = "perturb", 5

    def command(self, folder):
        return [FEDCOT, "perturb", "--model", MODEL, "--input", WORK + "/train.jsonl", "--output",
                folder + "/p.jsonl", "--epsilon", "8", "--threads", "1"]

    def prepare(self, folder):
        os.mkdir(folder)

    def before_restart(self, folder):
        """Whole lines of the ledger that the first run left: the second may only add to them."""
        try:
            with open(folder + "/p.jsonl.ledger", "rb") as f:
                left = f.read()
        except FileNotFoundError:
            return b""
        return left[:left.rfind(b"\n") + 1]

    def check(self, folder, left):
        ledger = open(folder + "/p.jsonl.ledger", "rb").read()
        assert ledger.startswith(left), "the restart changed records"
        facts = charged(folder + "/p.jsonl.ledger", folder + "/p.jsonl.head")
        self.facts = getattr(self, "facts", facts)
        assert facts == self.facts and facts[0] == N, "charged %s, not %s" % (facts, self.facts)
        bought = set()
        for line in ledger.splitlines():
            bought |= {item["text"] for item in json.loads(line[65:]).get("items", [])}
        out = [json.loads(line) for line in open(folder + "/p.jsonl")]
        assert [o["id"] for o in out] == [e["id"] for e in DATA], "ids"
        assert {o["prompt"] for o in out} == bought, "texts that are not in the ledger"


class Train:
    name, few = "train", 3

    def command(self, folder):
        return [FEDCOT, "train", "--model", MODEL, "--train", WORK + "/train.jsonl", "--output",
                folder, "--steps", "3", "--checkpoint-every", "1", "--resume", "--threads", "1",
                "--tokens-per-step", "96"]

    def prepare(self, folder):
        pass

    def before_restart(self, folder):
        return None

    def check(self, folder, _):
        with open(folder + "/model.safetensors", "rb") as f:
            weights = f.read()
        self.weights = getattr(self, "weights", weights)
        assert weights == self.weights, "other weights"
        left = [f for f in os.listdir(folder) if ".tmp." in f]
        assert not left, "temporary files: %s" % left


class Distill:
    name, few = "distill", 2

    def __init__(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.url = "tcp://127.0.0.1:%d" % s.getsockname()[1]
        self.log = open(WORK + "/server.log", "wb")
        self.server = subprocess.Popen([FEDCOT, "serve", "--model", MODEL, "--listen", self.url],
                                       stdout=self.log, stderr=self.log)
        self.first = None
        deadline = time.time() + 300
        while b"ready " not in open(WORK + "/server.log", "rb").read():
            assert self.server.poll() is None and time.time() < deadline, "the server"
            time.sleep(0.05)

    def command(self, folder):
        return [FEDCOT, "distill", "--model", MODEL, "--server", self.url, "--train",
                WORK + "/train.jsonl", "--dev", WORK + "/dev.jsonl", "--epsilon", "8",
                "--rationale-tokens", "8", "--no-zero-shot", "--no-label-only", "--threads", "1",
                "--tokens-per-step", "256", "--output", folder]

    def prepare(self, folder):
        os.mkdir(folder)
        if self.first:
            for name in ("client.ledger", "client.ledger.key"):
                shutil.copy(self.first + "/" + name, folder)
            subprocess.run([FEDCOT, "ledger", folder + "/client.ledger", "--moved"], check=True,
                           capture_output=True)

    def before_restart(self, folder):
        return None

    def check(self, folder, _):
        facts = charged(folder + "/client.ledger", folder + "/ledger.head")
        if not self.first:
            self.first, self.facts = folder, facts
        assert facts == self.facts and facts[0] == N, "charged %s, not %s" % (facts, self.facts)
        for name in RESULTS:
            assert lines(folder + "/" + name) == lines(self.first + "/" + name), name
        with open(folder + "/model/model.safetensors", "rb") as a, \
                open(self.first + "/model/model.safetensors", "rb") as b:
            assert a.read() == b.read(), "other weights"
        left = [f for f in os.listdir(folder) + os.listdir(folder + "/model") if ".tmp." in f]
        assert not left, "temporary files: %s" % left

    def close(self):
        self.server.kill()
        self.server.wait()


def spread(total, few, shift):
    """Which k to disturb: all, or a few, others for each kind."""
    if os.environ.get("FEDCOT_TEST_LONG"):
        return range(1, total + 1)
    n = 2 if os.environ.get("FEDCOT_TEST_SHORT") else few
    step = total / n
    return sorted({min(total, 1 + int(i * step + shift * step)) for i in range(n)})


def disturb(job, kind, k, seen):
    folder = WORK + "/point"
    shutil.rmtree(folder, ignore_errors=True)
    job.prepare(folder)
    status, said, _ = run(job.command(folder), (kind, k))
    seen[status] = seen.get(status, 0) + 1
    if kind in ("kill", "torn"):
        assert status in (0, 137), "status %d:\n%s" % (status, said)
    else:
        assert status in (0, 7), "status %d:\n%s" % (status, said)
    if kind == "short":
        assert status == 0, "half a write was an error:\n" + said
    if status == 7:
        message = said.strip().splitlines()[-1]
        assert message.startswith("fedcot %s: " % job.name) and ": cannot " in message, message
    left = job.before_restart(folder)
    status, said, _ = run(job.command(folder))
    assert status == 0, "the restart ended with %d:\n%s" % (status, said)
    job.check(folder, left)


def try_kinds(job):
    job.prepare(WORK + "/first-" + job.name)
    status, said, total = run(job.command(WORK + "/first-" + job.name), ("none", 0))
    if status == 77:
        print("skipped: calls to the disk cannot be disturbed here")
        sys.exit(77)
    assert status == 0, said
    job.check(WORK + "/first-" + job.name, b"")
    for i, kind in enumerate(KINDS):
        seen, points = {}, spread(total, job.few, i / len(KINDS))
        for k in points:
            try:
                disturb(job, kind, k, seen)
            except (AssertionError, OSError, subprocess.TimeoutExpired) as e:
                raise AssertionError("%s, %s at call %d of %d: %s" % (job.name, kind, k, total, e))
        print("%s %s: %d points of %d, statuses %s, all restarts right" %
              (job.name, kind, len(points), total, dict(sorted(seen.items()))), flush=True)


distill = None
try:
    try_kinds(Perturb())
    try_kinds(Train())
    distill = Distill()
    try_kinds(distill)
except AssertionError as e:
    print("FAILED: %s" % e, file=sys.stderr)
    sys.exit(1)
finally:
    if distill:
        distill.close()
