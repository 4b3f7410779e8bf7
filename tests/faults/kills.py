#!/usr/bin/env python3
"""Jobs whose client, server, or both are killed by SIGKILL (or stopped for a while by SIGSTOP) at a
moment that a seed chooses, and started again.

Every job has its own server, which keeps its answers on disk, a ledger and a folder; sessions are
encrypted. When it has ended, an undisturbed job is run with a
copy of its ledger, hence over the same perturbed texts, and must give the same bytes of rationales
and weights. The ledger must hold each document once, and as many draws as any other job's.

    kills.py FEDCOT [--client N] [--server N] [--both N] [--seed S] [--parallel N]
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE.parent / "golden" / "tiny-chat"
EXAMPLES = 24
DEADLINE = 300  # seconds for anything: far more than it takes


class Failure(Exception):
    pass


class Job:
    """One folder, one server, one client; `paid` is a ledger to start from."""

    def __init__(self, options, work, port, paid=None):
        self.options, self.work, self.port = options, work, port
        self.output = work / "out"
        self.output.mkdir(parents=True)
        if paid:
            for name in ("client.ledger", "client.ledger.key"):
                shutil.copy(paid / name, self.output / name)
            self.run("ledger", self.output / "client.ledger", "--moved")

    def run(self, *arguments):
        done = subprocess.run([self.options.fedcot, *map(str, arguments)], capture_output=True,
                              text=True, timeout=DEADLINE)
        if done.returncode:
            raise Failure(f"{arguments[0]}: status {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def start(self, log, *arguments):
        with open(self.work / log, "a") as out:
            return subprocess.Popen([self.options.fedcot, *map(str, arguments)], stdout=out,
                                    stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def start_server(self):
        return self.start("server.log", "serve", "--model", MODEL, "--listen", self.address(),
                          "--state", self.work / "state", "--threads", 1, *self.options.server_keys)

    def start_client(self):
        data = self.options.data
        return self.start("client.log", "distill", "--model", MODEL, "--server", self.address(),
                          "--train", data / "train.jsonl", "--dev", data / "dev.jsonl",
                          "--epsilon", 8, "--rationale-tokens", 16, "--no-zero-shot",
                          "--no-label-only", "--tokens-per-step", 256, "--threads", 1,
                          "--output", self.output, *self.options.client_keys)

    def address(self):
        return f"tcp://127.0.0.1:{self.port}"

    def complete(self, disturb=None):
        """Runs the job to its end. disturb(job, processes) is called once, while it runs."""
        processes = {"server": self.start_server(), "client": self.start_client()}
        try:
            if disturb:
                disturb(self, processes)
            end = time.monotonic() + DEADLINE
            while processes["client"].poll() is None:
                if time.monotonic() > end:
                    raise Failure("the client does not end")
                if processes["server"].poll() is not None:
                    raise Failure(f"the server ended: {processes['server'].returncode}")
                time.sleep(0.02)
            if processes["client"].returncode:
                raise Failure(f"the client's status is {processes['client'].returncode}")
        except Failure as failure:
            logs = "".join((self.work / log).read_text()[-2000:] for log in
                           ("server.log", "client.log") if (self.work / log).exists())
            raise Failure(f"{failure}\n{logs}") from None
        finally:
            for process in processes.values():
                if process.poll() is None:
                    process.kill()
                process.wait()

    def result(self):
        """The bytes that must not depend on what happened: lines come in any order."""
        files = {name: sorted((self.output / name).read_bytes().splitlines())
                 for name in ("perturbed.jsonl", "received.jsonl", "rationales.jsonl")}
        files["weights"] = (self.output / "model" / "model.safetensors").read_bytes()
        return files

    def charged(self):
        head = self.output / "ledger.head"
        told = json.loads(self.run("ledger", self.output / "client.ledger", "--head", head, "--json"))
        return told["documents"], told["units"]


def disturbance(kind, draw, duration):
    """What happens to a job of this kind: the processes it meets, when, and how."""
    victims = ["client", "server"] if kind == "both" else [kind]
    moment, pause = draw.random() * duration, draw.random() < 0.2

    def disturb(job, processes):
        time.sleep(moment)
        job.met = all(processes[name].poll() is None for name in victims)
        for name in victims:
            if pause:
                processes[name].send_signal(signal.SIGSTOP)
        if pause:
            time.sleep(1)
        for name in victims:
            processes[name].send_signal(signal.SIGCONT)
            processes[name].kill()
            processes[name].wait()
        for name in reversed(victims):
            processes[name] = job.start_server() if name == "server" else job.start_client()

    return disturb, f"{moment:.2f} s" + (" after a stop" if pause else "")


def check_job(options, number, kind, duration, expected):
    draw = random.Random(f"{options.seed}/{number}")
    work = options.work / str(number)
    port = options.port + 2 * number
    disturb, what = disturbance(kind, draw, duration)
    try:
        job = Job(options, work / "killed", port)
        job.complete(disturb)
        if job.charged() != expected:
            raise Failure(f"charged {job.charged()} documents and draws, expected {expected}")
        again = Job(options, work / "undisturbed", port + 1, paid=job.output)
        again.complete()
        got, wanted = job.result(), again.result()
        for name in wanted:
            if got[name] != wanted[name]:
                raise Failure(f"other {name} than the undisturbed job's")
    except Failure as failure:
        return False, f"job {number} ({kind} killed after {what}): {failure}"
    shutil.rmtree(work)
    return job.met, None


def make_keys(options):
    """A key for every server and one for every client."""
    server, client = options.work / "server.key", options.work / "client.key"
    for key in (server, client):
        subprocess.run([options.fedcot, "keygen", "--out", key], check=True,
                       stdout=subprocess.DEVNULL)
    public = (options.work / "client.key.pub").read_text().strip()
    clients = options.work / "clients.txt"
    clients.write_text(f"{public} client\n")
    options.server_keys = ["--key", server, "--clients", clients]
    options.client_keys = ["--key", client, "--server-key", f"{server}.pub"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("fedcot", type=os.path.abspath)
    for kind, fallback in (("client", 4), ("server", 2), ("both", 2)):
        parser.add_argument(f"--{kind}", type=int, default=fallback, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--parallel", type=int, default=2)
    options = parser.parse_args()
    options.port = 24000 + os.getpid() % 500 * 8
    with tempfile.TemporaryDirectory() as folder:
        options.work = pathlib.Path(folder)
        options.data = options.work / "data"
        subprocess.run([sys.executable, HERE.parents[1] / "scripts" / "make_word_problems.py",
                        "--train", str(EXAMPLES), "--dev", "4", options.data], check=True,
                       stdout=subprocess.DEVNULL)
        make_keys(options)
        first = Job(options, options.work / "first", options.port)
        options.port += 2
        begun = time.monotonic()
        first.complete()
        duration, expected = time.monotonic() - begun, first.charged()
        if expected[0] != EXAMPLES:
            print(f"FAILED: the undisturbed job charged {expected[0]} of {EXAMPLES} documents")
            return 1
        kinds = [kind for kind in ("client", "server", "both")
                 for _ in range(getattr(options, kind))]
        print(f"seed {options.seed}: {len(kinds)} jobs, killed within {duration:.1f} s", flush=True)
        with concurrent.futures.ThreadPoolExecutor(options.parallel) as pool:
            results = list(pool.map(
                lambda item: check_job(options, item[0], item[1], duration, expected),
                enumerate(kinds)))
    failures = [failure for _, failure in results if failure]
    for failure in failures:
        print("FAILED:", failure)
    met = sum(met for met, _ in results)
    print(f"client {options.client}, server {options.server}, both {options.both}: "
          f"{len(kinds) - len(failures)} of {len(kinds)} jobs ended with the bytes of an undisturbed "
          f"one, {expected[0]} documents and {expected[1]} draws charged once; {met} kills met a "
          f"job that still ran")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
