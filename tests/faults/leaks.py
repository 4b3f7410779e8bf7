#!/usr/bin/env python3
"""A whole job over private text whose words are found again if they get anywhere they should not.

    leaks.py FEDCOT TOOLS MODEL WORK LEAK.so...      TOOLS: the folder of tool_disk and tool_scan

The examples are made of marked words, which no other text has and no vocabulary, and of ordinary
ones. Sought are: marked words, runs of four ordinary words, ids, and keys, in many spellings
(scan.py); first in a job in clear, then in an encrypted one. Looked at: all bytes on the wire (a relay between the two, and tcpdump where it may run),
what both print, the files of both, the temporary and the home folder, what a killed client leaves,
and the memory of the server.

Not looked at: rationales.jsonl and the trained weights, which are made from private text and say so
in the README; ids may stand in the client's own *.jsonl files. Then the same with leaks on purpose:
each must be found."""
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import threading
import time

import scan

FEDCOT, TOOLS, MODEL = sys.argv[1:4]
WORK = pathlib.Path(sys.argv[4])
LEAKS = sys.argv[5:]
SEED = int(os.environ.get("FEDCOT_TEST_SEED", "20240613"))
N = 6
STARTED = []  # every process, to be ended whatever happens
ORDINARY = ("patient house river seven walks under green morning table large answer doctor found "
            "yellow before window paper music strong letter").split()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(true, what):
    deadline = time.time() + 300
    while not true():
        assert time.time() < deadline, "waited too long for " + what
        time.sleep(0.02)


def make_data():
    """Two files of examples. Returns the secrets in them."""
    r = random.Random(SEED)
    words, runs, ids = [], [], []

    def mark(into):
        into.append("".join(r.choice("bcdfghjkmnpqrstvwxz") for _ in range(9)))
        return into[-1]

    for name, n in (("train", N), ("dev", 2)):
        with open(WORK / (name + ".jsonl"), "w") as out:
            for _ in range(n):
                mixed = [w for _ in range(8) for w in (mark(words), r.choice(ORDINARY))]
                plain = [r.choice(ORDINARY) for _ in range(8)]
                runs += [" ".join(plain[i:i + 4]) for i in range(len(plain) - 3)]
                choices = [mark(words) for _ in range(3)]
                out.write(json.dumps({
                    "id": mark(ids), "question": " ".join(mixed + plain) + "?", "choices": choices,
                    "answer": choices[1], "rationale": mark(words) + " " + mark(words)}) + "\n")
    return {"word": words, "run of words": runs, "id": ids}


class Relay:
    """A man in the middle without keys: passes bytes on, and keeps them."""

    def __init__(self, back):
        self.back, self.seen = back, {"to the server": bytearray(), "to the client": bytearray()}
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(16)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
                server = socket.create_connection(("127.0.0.1", self.back))
            except OSError:
                return
            for a, b, way in ((client, server, "to the server"), (server, client, "to the client")):
                threading.Thread(target=self.pump, args=(a, b, self.seen[way]), daemon=True).start()

    @staticmethod
    def pump(a, b, seen):
        try:
            while data := a.recv(65536):
                seen += data
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Side:
    """Where one end works: a folder of its own for results, temporary files and home."""

    def __init__(self, name, preload=None):
        self.folder = WORK / name
        shutil.rmtree(self.folder, ignore_errors=True)
        for part in ("", "tmp", "home", "cwd", "state"):
            (self.folder / part).mkdir(exist_ok=True)
        self.said = self.folder / "said"
        self.env = dict(os.environ, TMPDIR=str(self.folder / "tmp"), HOME=str(self.folder / "home"))
        if preload:
            self.env["LD_PRELOAD"] = preload

    def start(self, command):
        with open(self.said, "ab") as said:
            STARTED.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said,
                                            stderr=said, cwd=self.folder / "cwd", env=self.env))
        return STARTED[-1]

    def run(self, command):
        return self.start(command).wait(timeout=600)


class Clear:
    """A session without keys."""
    name, encrypted, server_flags, client_flags, secrets = "clear", False, [], [], {}


class Encrypted:
    """Sessions between two new key pairs."""
    name, encrypted = "encrypted", True

    def __init__(self):
        folder = WORK / "keys"
        folder.mkdir(mode=0o700)
        self.secrets = {}
        for side in ("server", "client"):
            path = folder / (side + ".secret")
            said = subprocess.run([FEDCOT, "keygen", "--out", path], check=True, capture_output=True)
            secret = bytes.fromhex(path.read_text().split()[5])
            assert len(secret) == 32 and secret.hex().encode() not in said.stdout + said.stderr
            self.secrets[side + "'s key"] = [secret]
        (folder / "clients").write_text((folder / "client.secret.pub").read_text().strip() + " here\n")
        self.server_flags = ["--key", str(folder / "server.secret"), "--clients",
                             str(folder / "clients")]
        self.client_flags = ["--key", str(folder / "client.secret"), "--server-key",
                             str(folder / "server.secret.pub")]


class World:
    """A server, and what is seen of it and of its clients."""

    def __init__(self, keys):
        self.keys, port = keys, free_port()
        self.tcpdump = None
        self.captured = WORK / "captured"
        if shutil.which("tcpdump"):
            self.tcpdump = subprocess.Popen(
                ["tcpdump", "-i", "lo", "-U", "-s", "0", "-Z", "root", "-w", self.captured, "tcp", "port",
                 str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            STARTED.append(self.tcpdump)
            line = self.tcpdump.stderr.readline()  # "listening on", or why not
            while line and b"listening" not in line:
                line = self.tcpdump.stderr.readline()
            if not line:
                self.tcpdump = None
        self.side = Side("server")
        self.server = self.side.start(
            [FEDCOT, "serve", "--model", MODEL, "--listen", "tcp://127.0.0.1:%d" % port, "--state",
             str(self.side.folder / "state"), "--threads", "1"] + keys.server_flags)
        wait_until(lambda: b"ready " in self.side.said.read_bytes() or self.server.poll() is not None,
                   "the server")
        assert self.server.poll() is None, self.side.said.read_text()
        self.relay = Relay(port)

    def command(self, output, *flags):
        return [FEDCOT, "distill", "--model", MODEL, "--server",
                "tcp://127.0.0.1:%d" % self.relay.port, "--train", str(WORK / "train.jsonl"), "--dev",
                str(WORK / "dev.jsonl"), "--epsilon", "2", "--rationale-tokens", "8",
                "--no-zero-shot", "--no-label-only", "--threads", "1", "--output", str(output),
                *self.keys.client_flags, *flags]

    def places(self, client, report, memory):
        """(place, bytes, kinds of secrets that may stand there)."""
        for way, data in self.relay.seen.items():
            yield "the wire " + way, bytes(data), ()
        if self.tcpdump and self.captured.exists():
            through = sum(map(len, self.relay.seen.values()))
            for _ in range(500):  # it is behind by what the kernel has not handed over
                if self.captured.stat().st_size > through:
                    break
                time.sleep(0.02)
            yield "tcpdump", self.captured.read_bytes(), ()
        for side in (client, self.side):
            for path in sorted(p for p in side.folder.rglob("*") if p.is_file()):
                where = path.relative_to(side.folder)
                if path.name in ("rationales.jsonl", "model.safetensors") or path.name in report:
                    continue
                own = side is client and path.suffix == ".jsonl" and where.parts[0] == "out"
                may = ("id",) if own else ("ledger's key",) if path.name.endswith(".key") else ()
                yield "%s/%s" % (side.folder.name, where), path.read_bytes(), may
        self.memory = scan.memory_of(self.server.pid) if memory else None
        if self.memory:
            yield "the server's memory", bytes(self.memory), ("server's key",)

    def look(self, scanner, client, report=(), memory=False):
        """Everything found, as (place, kind of secret, secret)."""
        found, together = [], {}
        for place in self.places(client, report, memory):
            together.setdefault(place[2], []).append(place)
        for may, group in together.items():  # all at once; one by one only to say where
            if scanner.look(b"\0".join(data for _, data, _ in group), may):
                found += [(place, kind, secret) for place, data, _ in group
                          for kind, secret in scanner.look(data, may)]
        return found

    def close(self):
        self.server.kill()
        self.server.wait()
        self.relay.socket.close()
        if self.tcpdump:
            self.tcpdump.terminate()
            self.tcpdump.wait()


def show(found):
    return "".join("\n  %s: %s %s" % f for f in sorted(set(found))[:20])


def clean_job(secrets, keys):
    """Nothing may be found, of a whole job or of one that was killed near its end; and what must be
    there was really seen."""
    world = World(keys)
    try:
        client = Side("client")
        count = client.folder / "count"
        status = client.run([TOOLS + "/tool_disk", "none", "0", str(count)] + world.command(client.folder / "out"))
        traced = status != 77
        if not traced:
            status = client.run(world.command(client.folder / "out"))
        assert status == 0, client.said.read_text()
        key = (client.folder / "out/client.ledger.key").read_bytes()
        secrets = {**secrets, **keys.secrets, "ledger's key": [key]}
        scanner = scan.Scan(TOOLS + "/tool_scan", WORK / "needles", secrets)
        found = world.look(scanner, client, memory=True)
        assert not found, "private text got out:" + show(found)
        for part in ("tmp", "home", "cwd"):
            assert not list((client.folder / part).iterdir()), "files in the client's " + part
        sent = json.loads(open(client.folder / "out/perturbed.jsonl").readline())["prompt"].encode()
        if keys.encrypted:  # not even what may leave is to be seen by others
            assert sent not in world.relay.seen["to the server"], "not encrypted"
            assert b"FCoT" not in world.relay.seen["to the server"], "a frame in clear"
        else:  # the scan looks at the right bytes: what may leave is there
            assert sent in world.relay.seen["to the server"], "the relay has seen nothing"
            if world.tcpdump:
                wait_until(lambda: sent in world.captured.read_bytes(), "tcpdump")
        assert len(world.relay.seen["to the client"]) > 500, "no answers seen"
        if world.memory:
            assert b"tcp://127.0.0.1" in world.memory, "another memory"
        print("clean, %s: nothing in %.1f MB (wire %d bytes, tcpdump %s, the server's memory %s)" %
              (keys.name, scanner.bytes_seen / 1e6, sum(map(len, world.relay.seen.values())),
               "too" if world.tcpdump else "not here",
               "%.0f MB" % (len(world.memory) / 1e6) if world.memory else "not here"))
        if traced:
            total = int(count.read_text())
            killed = Side("killed")  # with the report half on disk
            killed.run([TOOLS + "/tool_disk", "torn", str(total - 2), str(killed.folder / "count")] +
                       world.command(killed.folder / "out"))
            found = world.look(scanner, killed)
            assert not found, "a killed client leaves private text:" + show(found)
            print("killed: nothing in what is left after call %d of %d" % (total - 2, total))
        # The report shows examples when it is asked to, and says so; and the scan reads it.
        assert client.run(world.command(client.folder / "out", "--examples", "1")) == 0
        page = client.folder / "out/report.html"
        assert scanner.look_in_file(page), "an example was asked for, and the scan sees none"
        assert b"Raw private text" in page.read_bytes(), "the report does not say what it shows"
        found = world.look(scanner, client, report=("report.html",))
        assert not found, "examples were put elsewhere than into the report:" + show(found)
    finally:
        world.close()


def seeded_job(secrets, keys, leak):
    """A client that leaks on purpose."""
    world = World(keys)
    try:
        client = Side("client", preload=leak)
        client.run(world.command(client.folder / "out", "--inference-only"))
        key = client.folder / "out/client.ledger.key"
        assert key.exists(), "the leaking client did not run:\n" + client.said.read_text()
        scanner = scan.Scan(TOOLS + "/tool_scan", WORK / "needles",
                            {**secrets, **keys.secrets, "ledger's key": [key.read_bytes()]})
        name = pathlib.Path(leak).stem
        found = world.look(scanner, client, memory=name == "header")
        if keys.encrypted and not world.memory:
            return print("seeded %s, encrypted: the server's memory is not to be read here" % name)
        assert found, "the leak %s was not found" % name
        places = sorted({place for place, _, _ in found})
        print("seeded %s, %s: found in %s" % (name, keys.name, ", ".join(places)))
        assert not keys.encrypted or places == ["the server's memory"], "encrypted, and seen outside"
    finally:
        world.close()


def main():
    secrets = make_data()
    print("seed %d: %d secrets" % (SEED, sum(map(len, secrets.values()))))
    clean_job(secrets, Clear)
    for leak in LEAKS:
        seeded_job(secrets, Clear, leak)
    keys = Encrypted()
    clean_job(secrets, keys)
    seeded_job(secrets, keys, LEAKS[0])  # into a frame: encrypted, so the server alone has it


try:
    main()
except AssertionError as e:
    print("FAILED: %s" % e, file=sys.stderr)
    sys.exit(1)
finally:
    for process in STARTED:
        if process.poll() is None:
            process.kill()
