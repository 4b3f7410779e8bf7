#!/usr/bin/env python3
"""Seeds one fault at a time into the code of encrypted sessions; a test must fail for each.

    net_faults.py [NAME...]      from anywhere; two or three minutes; needs a C compiler and pkg-config

Compiles base/ and net/ once into a temporary folder, then for each fault the changed copy of its
file alone; the tree itself is never touched. First the tests must pass without a fault. Exit status
1 if a fault survives, does not compile, or no longer applies: then the table is out of date.
"""
import argparse
import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]

SECONDS = 100  # of a test; a fault may well make it wait for ever

# name: (file, [(old, new)...], test that must fail). `old` must occur exactly once.
FAULTS = {
    "the tag is not checked": ("noise", [("number, key) == 0;", "number, key) <= 0;")], "tunnel"),
    "ss is not mixed in": ("noise", [
        ("if (!mix_product(n, &n->own, n->peer)) /* ss */", "if (false)"),
        ("mix_product(n, &n->own, n->peer) && /* ss */", "true &&")], "noise"),
    "es is not mixed in": ("noise", [
        ("if (!mix_product(n, &n->ephemeral, n->peer)) /* es */", "if (false)"),
        ("return mix_product(n, &n->own, n->peer_ephemeral) && /* es */", "return")], "noise"),
    "ee is not mixed in": ("noise", [
        ("if (!mix_product(n, &n->ephemeral, n->peer_ephemeral) || /* ee */", "if ("),
        ("return mix_product(n, &n->ephemeral, n->peer_ephemeral) && /* ee */", "return")], "noise"),
    "keys of small order are taken": ("noise", [
        ("if (crypto_scalarmult(product, pair->secret, public_key) != 0)\n        return false;",
         "if (crypto_scalarmult(product, pair->secret, public_key) != 0)\n        product[0] = 0;")],
        "noise"),
    "the prologue is not hashed": ("noise", [("mix_hash(n, prologue, n_prologue);",
                                              "(void)prologue, (void)n_prologue;")], "noise"),
    "what was said is not hashed": ("noise", [("    mix_hash(n, out, len + FC_NOISE_TAG);\n", ""),
                                              ("    mix_hash(n, in, len);\n    return true;",
                                               "    return true;")], "noise"),
    "the keys of the two ways are one": ("noise", [("memcpy(to_initiator, second, FC_KEY_SIZE);",
                                                    "memcpy(to_initiator, first, FC_KEY_SIZE);")],
                                         "noise"),
    "a rekey is a plain encryption": ("noise", [("fc_noise_encrypt(key, UINT64_MAX,",
                                                 "fc_noise_encrypt(key, 0,")], "noise"),
    "the header is not bound": ("handshake", [
        ("memcpy(prologue + sizeof TITLE - 1, header, FC_PACKET_HEADER);",
         "memset(prologue + sizeof TITLE - 1, header[0], FC_PACKET_HEADER);")], "handshake"),
    "the server's share is always the same": ("handshake", [
        ("unsigned char secret[FC_KEY_SIZE], number[8];\n    randombytes_buf(secret, sizeof secret);",
         "unsigned char secret[FC_KEY_SIZE] = {7}, number[8];")], "handshake"),
    "the client's share is always the same": ("handshake", [
        ("unsigned char secret[FC_KEY_SIZE];\n    randombytes_buf(secret, sizeof secret);",
         "unsigned char secret[FC_KEY_SIZE] = {7};")], "handshake"),
    "old counters are taken": ("tunnel", [("counter < t->receive.counter || ", "")], "tunnel"),
    "a counter is taken twice": ("tunnel", [("way->counter = counter + 1;",
                                             "way->counter = counter;")], "tunnel"),
    "another session's packets are taken": ("tunnel", [
        (" ||\n        fc_tunnel_session(packet, len) != t->session)", ")")], "tunnel"),
    "the clear part of a packet is not bound": ("tunnel", [
        ("fc_noise_encrypt(key, counter, packet, FC_TUNNEL_HEADER, body",
         "fc_noise_encrypt(key, counter, packet, 0, body"),
        ("fc_noise_decrypt(key, counter, packet, FC_TUNNEL_HEADER, body",
         "fc_noise_decrypt(key, counter, packet, 0, body")], "tunnel"),
    "keys are never replaced": ("tunnel", [("age < counter / FC_TUNNEL_REKEY; age++",
                                            "age < counter / (FC_TUNNEL_REKEY << 32); age++")],
                                "tunnel"),
    "keys are replaced one packet late": ("tunnel", [
        ("age < counter / FC_TUNNEL_REKEY; age++", "age < (counter ? counter - 1 : 0) / FC_TUNNEL_REKEY; age++")],
        "tunnel"),
    "any jump of the counter is followed": ("tunnel", [("- t->receive.age > FC_TUNNEL_SKIP",
                                                        "- t->receive.age > UINT64_MAX / 2")], "tunnel"),
    "a forged packet moves the counter": ("tunnel", [("if (authentic)\n", "")], "tunnel"),
    "the length inside is believed": ("tunnel", [
        ("return *n_frame <= len - FC_TUNNEL_HEADER - LENGTH_SIZE - FC_NOISE_TAG;", "return true;")],
        "tunnel"),
    "lengths are not hidden": ("tunnel", [("return round_up(len, 256);", "return len;")], "tunnel"),
    "a session is never spent": ("tunnel", [
        ("return t->send.counter >= FC_TUNNEL_COUNTERS || t->receive.counter >= FC_TUNNEL_COUNTERS;",
         "return t == NULL;")], "tunnel"),
    "everybody is in the list": ("gate", [
        ("!(client = fc_allow_list_find(&g->list, g->noise->peer))", "!(client = g->list.clients)")],
        "handshake"),
    "a revoked key keeps its session": ("gate", [("            s->identity = *client;\n        else\n"
                                                  "            forget(s);",
                                                  "            s->identity = *client;")], "handshake"),
    "new bounds do not reach a session": ("gate", [("            s->identity = *client;\n        else",
                                                    "            (void)client;\n        else")],
                                          "handshake"),
    "a session counts before its client spoke": ("gate", [("s->state = ON_TRIAL;",
                                                           "s->state = CONFIRMED;")], "handshake"),
    "a session never ends": ("gate", [("now - s->begun > MAX_AGE || ", "")], "gate"),
    "a silent session never ends": ("gate", [("now - s->heard > idle || ", "")], "gate"),
    "the first packet again makes another session": ("gate", [("    if (known) {", "    if (known && !known) {")],
                                                     "handshake"),
    "a flood pushes workers out": ("gate", [("a->state != b->state ? a->state < b->state :", "")],
                                   "gate"),
    "one client may fill the table": ("gate", [("own && n_own >= share ? own : worst",
                                                "own && n_own >= 999999 + share ? own : worst")], "gate"),
    "who sent it is somebody else": ("gate", [("r->identity = &s->identity;",
                                               "r->identity = g->list.clients;")], "handshake"),
    "another version is passed over in silence": ("gate", [
        ("return refuse_version(g, now, packet, len, r);",
         "return refuse_version(g, now, packet, len, r), FC_GATE_DROP;")], "handshake"),
    "a session's number can be guessed": ("gate", [("    randombytes_buf(&random, sizeof random);",
                                                    "    random = 0;")], "handshake"),
    "any refusal is believed": ("packet", [
        ("sodium_memcmp(expected, data + DIGEST_AT, DIGEST_SIZE) == 0", "expected[0] < 256")],
        "handshake"),
    "a forged refusal ends a working session": ("channel", [
        ("code == FC_REFUSAL_KEY && c->state == ASKING", "code == FC_REFUSAL_KEY")], "handshake"),
    "the client keeps a session for ever": ("channel", [("now - c->begun > MAX_AGE || ", "")],
                                            "gate"),
    "each first packet is another": ("channel", [("if (c->state != ASKING) {", "if (c) {")],
                                     "handshake"),
    "a secret key may be readable": ("keys", [("if (st.st_mode & 077)", "if (st.st_mode & 01000)")],
                                     "keys"),
    "a secret key is written readable": ("keys", [("fchmod(fd, 0600)", "fchmod(fd, 0640)")], "keys"),
    "the halves of a key need not match": ("keys", [
        (" &&\n           memcmp(written, pair->public_key, FC_KEY_SIZE) == 0;", ";")], "keys"),
    "a key is overwritten": ("keys", [("link(temporary, path)", "rename(temporary, path)")], "keys"),
    "more than a key is a key": ("keys", [("(n != FILE_SIZE || !parse(pair, text))",
                                           "(n < FILE_SIZE || !parse(pair, text))")], "keys"),
    "a fifo is waited for": ("keys", [("O_RDONLY | O_CLOEXEC | O_NONBLOCK", "O_RDONLY | O_CLOEXEC")],
                             "keys"),
    "a key comes twice in the list": ("allow_list", [('return "this key is there already";',
                                                      "return NULL;")], "keys"),
    "anybody may write the list": ("allow_list", [("st.st_mode & 022", "st.st_mode & 01000")], "keys"),
    "a bad line is passed over": ("allow_list", [("        if (wrong)\n            return fc_fail",
                                                  "        if (wrong)\n            continue;\n"
                                                  "        if (wrong)\n            return fc_fail")],
                                  "keys"),
    "job ids are everybody's": ("requests", [("    if (r->route->session)\n",
                                              "    if (r->route->session == 1)\n")], "secure"),
    "a revoked client keeps its jobs": ("server", [
        ("    if (code == FC_OK)\n        fc_server_drop_revoked(s);\n    return code;",
         "    return code;")], "secure"),
    "a server with keys serves in clear": ("server", [
        ("return fc_server_refuse_clear(s, route);",
         "return fc_server_serve(s, data, len, &fc_client_anonymous, route, err);")], "secure"),
    "answers go out in clear": ("server", [("    if (!route->session) {",
                                            "    if (!route->session || !sealed) {")], "secure"),
    "a held-back answer is taken for another": ("exchange", [
        ("(sequence < x->first || sequence > x->sequence)", "sequence == 1")], "secure"),
}


def flags(*words):
    return subprocess.run(["pkg-config", *words, "libsodium", "nanomsg", "libcjson", "cmocka"],
                          check=True, capture_output=True, text=True).stdout.split()


class Bench:
    def __init__(self, work):
        self.work = work
        self.cc = os.environ.get("CC", "cc")
        self.cflags = ["-std=c11", "-O1", "-w", "-I", str(ROOT),
                       '-DFC_GOLDEN_DIR="%s"' % (ROOT / "tests/golden"), *flags("--cflags")]
        self.libs = [*flags("--libs"), "-lm", "-lpthread"]
        self.objects = {}

    def compile(self, source, out):
        subprocess.run([self.cc, *self.cflags, "-c", str(source), "-o", str(out)], check=True)
        return out

    def compile_all(self, tests):
        sources = [*ROOT.glob("base/*.c"), *ROOT.glob("net/*.c"),
                   *(ROOT / ("tests/net/test_%s.c" % t) for t in tests)]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for source, out in zip(sources, pool.map(
                    lambda s: self.compile(s, self.work / (s.parent.name + "_" + s.stem + ".o")), sources)):
                self.objects[source.parent.name + "/" + source.stem] = out

    def passes(self, test, changed=None, replaced=None):
        """Whether the test passes with net/`replaced` compiled from the file `changed`."""
        objects = {k: v for k, v in self.objects.items() if not k.startswith("net/test_")}
        if changed:
            objects["net/" + replaced] = self.compile(changed, self.work / "fault.o")
        program = self.work / "program"
        subprocess.run([self.cc, *map(str, objects.values()), str(self.objects["net/test_" + test]),
                        *self.libs, "-o", str(program)], check=True)
        run = subprocess.Popen([str(program)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        timer = threading.Timer(SECONDS, run.kill)
        timer.start()
        for line in run.stderr:
            if "FAILED" in line:  # the rest of a failed test may wait for threads that never end
                run.kill()
        timer.cancel()
        return run.wait() == 0


def seed(bench, name):
    """None, or what is wrong."""
    file, changes, test = FAULTS[name]
    text = (ROOT / "net" / (file + ".c")).read_text()
    for old, new in changes:
        if text.count(old) != 1:
            return "does not apply (%d places): %r" % (text.count(old), old)
        text = text.replace(old, new)
    changed = bench.work / (file + ".c")
    changed.write_text(text)
    try:
        return "SURVIVES net/" + test if bench.passes(test, changed, file) else None
    except subprocess.CalledProcessError:
        return "does not compile"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="these faults alone")
    names = parser.parse_args().names or list(FAULTS)
    for name in names:
        if name not in FAULTS:
            parser.error("no such fault: %s" % name)
    work = pathlib.Path(tempfile.mkdtemp())
    try:
        bench = Bench(work)
        tests = sorted({FAULTS[n][2] for n in names})
        bench.compile_all(tests)
        for test in tests:
            if not bench.passes(test):
                sys.exit("net/%s fails without a fault" % test)
        wrong = 0
        for name in names:
            problem = seed(bench, name)
            wrong += problem is not None
            print("%-8s %s%s" % ("WRONG" if problem else "found", name,
                                 ": " + problem if problem else " (net/%s)" % FAULTS[name][2]), flush=True)
        print("%d faults, %d found" % (len(names), len(names) - wrong))
        return 1 if wrong else 0
    finally:
        shutil.rmtree(work)


sys.exit(main())
