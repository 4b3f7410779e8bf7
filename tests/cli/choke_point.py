#!/usr/bin/env python3
"""Which objects of a build can make bytes leave the machine, and which can make what may leave.

    choke_point.py FOLDER...     every object file below, as CMake names them (MODULE/.../NAME.c.o)

Reads the undefined symbols (nm). An object that calls one of the functions below and is not in its
list fails the test; so does a function that must be called somewhere and is not, because then this
test looks at nothing. Adding an object to a list is a decision: say why beside it."""
import fnmatch
import subprocess
import sys

SENDERS = ["net/exchange.c.o",  # the client's frames: transmit, the only way out of a client
           "net/server*.c.o", "net/requests*.c.o", "net/reply*.c.o"]  # the server's answers
NOBODY = []
RULES = {
    # function: (objects that may call it, whether somebody must)
    "nn_sendmsg": (SENDERS, True),
    "nn_send": (SENDERS, False),
    "nn_connect": (["net/exchange.c.o"], True),
    "nn_socket": (["net/exchange.c.o", "net/server.c.o"], True),
    "nn_bind": (["net/server.c.o"], True),
    # Nothing but nanomsg touches a socket, so no other descriptor is one. What is written goes to
    # files that these opened.
    **{name: (NOBODY, False) for name in (
        "send", "sendto", "sendmsg", "sendmmsg", "sendfile", "splice", "vmsplice", "tee", "socket",
        "socketpair", "connect", "bind", "listen", "accept", "accept4", "getaddrinfo", "syscall",
        "popen", "system", "posix_spawnp", "fork", "vfork", "writev", "pwritev",
        "dprintf", "vdprintf", "mkfifo", "shm_open", "mq_open", "mq_send", "io_uring_setup",
        "nn_device", "nn_tcmute")},
    "write": (["base/file.c.o",
               "net/keys.c.o"], True),     # a secret key's file, past any buffer
    "pwrite": (["net/log.c.o"], False),    # the server's files
    "execv": (["cli/openmp.c.o"], False),  # itself, with another environment
    "posix_spawn": (["bench/case_counters.c.o"], False),  # fedcot-bench runs itself; fedcot lacks it
    **{name: (NOBODY, False) for name in ("execve", "execvp", "execl", "execlp", "execle", "fexecve")},
    "dlopen": (["kernels/cuda/*"], False),  # the GPU's driver
    "dlsym": (["kernels/cuda/*"], False),
    # What may leave: made by the perturber, after the charge ...
    "fc_perturbed_make": (["privacy/perturb*.c.o"], True),
    # ... or in clear, by the one stage whose flag is called --unprotected ...
    "fc_perturbed_unprotected": (["cli/stage_perturb.c.o"], True),
    # ... and the only call that takes it towards the socket.
    "fc_client_submit": (["cli/stage_exchange.c.o"], True),
    "fc_exchange_ask": (["net/*.c.o"], True),
}


def objects(folders):
    for folder in folders:
        listing = subprocess.run(["find", folder, "-name", "*.o"], capture_output=True, text=True,
                                 check=True)
        for path in sorted(listing.stdout.split()):
            name = path.split(".dir/", 1)[-1]
            if not name.startswith("tests/") and "CompilerId" not in path:
                yield path, name


def undefined(paths):
    """path -> symbols that it takes from elsewhere."""
    symbols = {path: set() for path in paths}
    listing = subprocess.run(["nm", "-A", "-u", "-P", *paths], capture_output=True, text=True,
                             check=True)
    for line in listing.stdout.splitlines():
        path, rest = line.split(": ", 1)
        symbols[path].add(rest.split()[0].split("@")[0])
    return symbols


def main():
    wrong, called, names = [], set(), dict(objects(sys.argv[1:]))
    symbols = undefined(names) if names else {}
    for path, name in names.items():
        for symbol in symbols[path] & RULES.keys():
            called.add(symbol)
            if not any(fnmatch.fnmatchcase(name, allowed) for allowed in RULES[symbol][0]):
                wrong.append("%s calls %s" % (name, symbol))
    for symbol, (_, needed) in RULES.items():
        if needed and symbol not in called:
            wrong.append("nobody calls %s: is this the right folder?" % symbol)
    for line in wrong:
        print("WRONG: " + line)
    print("%d objects, %d functions watched, %d calls that should not be" % (len(names), len(RULES), len(wrong)))
    return 1 if wrong else 0


sys.exit(main())
