#!/usr/bin/env python3
"""Seeds faults into the kernels, one at a time, and shows that the tests see each.

    tests/mutation/mutate.py --simulator FOLDER [--only NAME ...] [--work FOLDER]
    tests/mutation/mutate.py --list

The tree is copied, so nothing here is touched; each fault is put into the copy, the tests it names
are built (CUDA for ptx90 alone) and run on the simulator whose lib/ is in FOLDER, and at least one
must fail. Before that every test must pass without a fault. A fault that does not compile is an
error of the table. Without --work the copy is made in a temporary folder and removed; with it, kept
and used again. Exit status 0: all faults were caught.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from faults import FAULTS  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODES = {"plain": {"PTXSIM_POISON": "1"}, "race": {"PTXSIM_RACE": "1"},
         "init": {"PTXSIM_INITCHECK": "1"}, "async": {"PTXSIM_ASYNC": "1"}}
SECONDS_OF_A_TEST = 120  # a fault may well make a kernel wait for ever


def run(command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, **options)


def place_of(fault, root):
    """The file's text, after the check that the fault has exactly one place in it."""
    text = (root / fault.file).read_text()
    found = text.count(fault.old)
    if found != 1:
        sys.exit(f"{fault.name}: expected its old string once in {fault.file}, found it {found} "
                 "times; adapt the row in tests/mutation/faults.py")
    return text


class Copy:
    """A copy of the tree and its build folder."""

    def __init__(self, work, simulator):
        self.tree, self.build = work / "tree", work / "build"
        self.simulator = simulator.resolve()
        self.passing = set()
        names = run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT).stdout.split("\n")
        for name in filter(None, names):
            source, target = ROOT / name, self.tree / name
            if not source.is_file():
                continue
            text = source.read_bytes()
            if not target.is_file() or target.read_bytes() != text:  # keeps times: builds less
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
        configure = ["cmake", "-S", str(self.tree), "-B", str(self.build), "-DBUILD_TESTING=ON",
                     "-DCMAKE_BUILD_TYPE=Release", "-DFEDCOT_CUDA=ON", "-DFEDCOT_CUDA_ARCHS=ptx90"]
        if shutil.which("ccache"):
            configure += [f"-DCMAKE_{c}_COMPILER_LAUNCHER=ccache" for c in ("C", "CUDA")]
        result = run(configure)
        if result.returncode != 0:
            sys.exit(f"the copy could not be configured:\n{result.stdout}")

    def make(self, tests):
        """Builds the programs of the tests; returns the compiler's words if that failed."""
        targets = ["test_" + test.replace("/", "_") for test in tests]
        result = run(["cmake", "--build", str(self.build), "--parallel", str(os.cpu_count()),
                      "--target", *targets])
        return result.stdout if result.returncode != 0 else None

    def passes(self, test, mode):
        environment = dict(os.environ, PTXSIM_ABORT="1", PTXSIM_THREADS="1", **MODES[mode])
        environment["LD_LIBRARY_PATH"] = str(self.simulator / "lib")
        result = run(["ctest", "--test-dir", str(self.build), "-R", f"^{test}$", "--timeout",
                      str(SECONDS_OF_A_TEST)], env=environment)
        if "No tests were found" in result.stdout or "Skipped" in result.stdout:
            sys.exit(f"{test} did not run (is {self.simulator}/lib the simulator's?):\n"
                     f"{result.stdout}")
        return result.returncode == 0

    def check_without_fault(self, fault):
        for test in fault.tests:
            if (test, fault.mode) in self.passing:
                continue
            words = self.make([test])
            if words:
                sys.exit(f"{test} does not build without a fault:\n{words}")
            if not self.passes(test, fault.mode):
                sys.exit(f"{test} fails in mode {fault.mode} without a fault")
            self.passing.add((test, fault.mode))

    def catches(self, fault):
        self.check_without_fault(fault)
        text = place_of(fault, self.tree)
        file = self.tree / fault.file
        file.write_text(text.replace(fault.old, fault.new))
        try:
            words = self.make(fault.tests)
            if words:
                sys.exit(f"{fault.name} does not compile:\n{words}")
            return any(not self.passes(test, fault.mode) for test in fault.tests)
        finally:
            file.write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--simulator", type=pathlib.Path, help="folder whose lib/ is the simulator's")
    parser.add_argument("--only", action="append", help="this fault alone; may be repeated")
    parser.add_argument("--work", type=pathlib.Path, help="where the copy is made and kept")
    parser.add_argument("--list", action="store_true", help="print the faults and check the table")
    options = parser.parse_args()
    faults = [f for f in FAULTS if not options.only or f.name in options.only]
    unknown = set(options.only or []) - {f.name for f in FAULTS}
    if unknown:
        sys.exit(f"no such fault: {', '.join(sorted(unknown))}; --list prints them")
    for fault in faults:
        place_of(fault, ROOT)
    if options.list:
        for fault in faults:
            print(f"{fault.name:45} {fault.mode:6} {fault.file} {' '.join(fault.tests)}")
        return 0
    if not options.simulator or not (options.simulator / "lib").is_dir():
        sys.exit("--simulator FOLDER is needed: the simulator's build, with lib/ in it")
    with tempfile.TemporaryDirectory() as temporary:
        copy = Copy(options.work or pathlib.Path(temporary), options.simulator)
        caught = 0
        for fault in faults:
            seen = copy.catches(fault)
            caught += seen
            print(f"{'caught' if seen else 'MISSED'}  {fault.name}", flush=True)
    print(f"{len(faults)} faults, {caught} caught")
    return 0 if caught == len(faults) else 1


if __name__ == "__main__":
    sys.exit(main())
