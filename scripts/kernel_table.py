#!/usr/bin/env python3
"""What ptxas made of every kernel: registers, shared memory, stack, launch bound, occupancy.

    scripts/kernel_table.py BUILD [--output FILE]     write the table (docs/kernels.txt)
    scripts/kernel_table.py BUILD --check             fail where a kernel breaks a rule

The rules, for each kernel and architecture: no stack frame (spills and arrays in local memory both
need one), a launch bound, and bound times registers within the 65,536 of a multiprocessor.

Reads the machine code in BUILD's object files itself, so it needs neither cuobjdump nor a second
run of ptxas -v: the numbers are those in the program that was built. BUILD may hold any of sm_80,
sm_89, sm_90a; --check exits with 77 where it holds none.
"""
import argparse
import ctypes
import ctypes.util
import pathlib
import struct
import subprocess
import sys

REGISTERS = 65536
# threads and blocks of a multiprocessor, its shared memory, and what each block's takes besides.
# An architecture that is not here is reported by its name and counted like sm_90.
LIMITS = {80: (2048, 32, 164 << 10, 1 << 10), 86: (1536, 16, 100 << 10, 1 << 10),
          89: (1536, 24, 100 << 10, 1 << 10), 90: (2048, 32, 228 << 10, 1 << 10),
          100: (2048, 32, 228 << 10, 1 << 10), 120: (1536, 24, 100 << 10, 1 << 10)}
# Attributes of .nv.info sections (EIATTR_*), and the format of those with a size.
MAX_THREADS, FRAME_SIZE, REGCOUNT, SIZED = 0x05, 0x11, 0x2F, 4


def sections(elf):
    """The sections of a 64-bit ELF file: (name, type, info, size, bytes)."""
    offset, = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    heads = [struct.unpack_from("<IIQQQQIIQQ", elf, offset + i * size) for i in range(count)]
    strings = heads[names][4]
    for name, kind, _, _, at, length, _, info, _, _ in heads:
        end = elf.index(b"\0", strings + name)
        data = b"" if kind == 8 else elf[at:at + length]
        yield elf[strings + name:end].decode(), kind, info, length, data


def lz4_block(data, size):
    out, at = bytearray(), 0

    def length_of(nibble):
        nonlocal at
        length = nibble
        while nibble == 15 or nibble == 255:
            nibble = data[at]
            at += 1
            length += nibble
            if nibble != 255:
                break
        return length

    while at < len(data):
        token = data[at]
        at += 1
        literals = length_of(token >> 4)
        out += data[at:at + literals]
        at += literals
        if at >= len(data):
            break
        back, = struct.unpack_from("<H", data, at)
        at += 2
        for _ in range(length_of(token & 15) + 4):
            out.append(out[-back])
    if len(out) != size:
        raise ValueError("a compressed kernel does not have its size")
    return bytes(out)


def zstd(data, size):
    name = ctypes.util.find_library("zstd")
    if not name:
        raise SystemExit("kernel_table.py: the kernels are compressed by zstd: install libzstd1")
    library = ctypes.CDLL(name)
    library.ZSTD_decompress.restype = ctypes.c_size_t
    library.ZSTD_decompress.argtypes = [ctypes.c_char_p, ctypes.c_size_t] * 2
    out = ctypes.create_string_buffer(size)
    if library.ZSTD_decompress(out, size, data, len(data)) != size:
        raise ValueError("a compressed kernel does not have its size")
    return out.raw


def machine_codes(fat):
    """The ELF files within the fat binaries of an object file's .nv_fatbin."""
    at = 0
    while at + 16 <= len(fat):
        magic, _, head, length = struct.unpack_from("<IHHQ", fat, at)
        if magic != 0xBA55ED50:
            at += 8  # padding between two of them
            continue
        entry, end = at + head, at + head + length
        while entry < end:
            kind, _, head, size = struct.unpack_from("<HHIQ", fat, entry)
            packed, = struct.unpack_from("<I", fat, entry + 16)
            flags, = struct.unpack_from("<Q", fat, entry + 40)
            full, = struct.unpack_from("<Q", fat, entry + 56)
            data = fat[entry + head:entry + head + (packed or size)]
            if kind == 2:
                if flags & 0x8000:
                    data = zstd(data, full)
                elif flags & 0x2000:
                    data = lz4_block(data, full)
                yield data
            entry += head + size
        at = end


def attributes(info):
    """The sized attributes of a .nv.info section: (attribute, bytes)."""
    at = 0
    while at + 4 <= len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form == SIZED:
            yield attribute, info[at:at + size]
            at += size


def kernels(elf):
    """Of one machine code: {mangled name: numbers}, and its architecture."""
    flags, = struct.unpack_from("<I", elf, 0x30)
    parts = list(sections(elf))
    strings = {name: data for name, _, _, _, data in parts}
    symbols = strings[".symtab"]
    names = strings[".strtab"]

    def symbol(index):
        start, = struct.unpack_from("<I", symbols, 24 * index)
        return names[start:names.index(b"\0", start)].decode()

    found = {name[6:]: {"shared": 0, "bound": 0, "stack": 0, "registers": 0}
             for name, *_ in parts if name.startswith(".text.")}
    for name, _, _, length, data in parts:
        if name == ".nv.info":
            for attribute, value in attributes(data):
                if attribute in (FRAME_SIZE, REGCOUNT):
                    index, number = struct.unpack("<II", value)
                    key = "stack" if attribute == FRAME_SIZE else "registers"
                    if symbol(index) in found:
                        found[symbol(index)][key] = number
        elif name.startswith(".nv.info.") and name[9:] in found:
            for attribute, value in attributes(data):
                if attribute == MAX_THREADS:
                    x, y, z = struct.unpack("<III", value)
                    found[name[9:]]["bound"] = x * y * z
        elif name.startswith(".nv.shared.") and name[11:] in found:
            found[name[11:]]["shared"] = length
    # Since CUDA 13 (ABI 0x41) the architecture lies in the second byte of the flags, before in the
    # first; and the section of shared memory begins with the kilobyte that sm_90 reserves.
    new = elf[7] == 0x41
    arch = flags >> 8 & 0xFF if new else flags & 0xFF
    for k in found.values():
        if new and arch >= 90 and k["shared"]:
            k["shared"] -= 1024
    return arch, found


def blocks_of(arch, k):
    """Blocks that fit a multiprocessor at once, with the static shared memory alone."""
    threads, blocks, shared, extra = LIMITS.get(arch, LIMITS[90])
    warps = -(-k["bound"] // 32)
    if not warps:
        return 0
    by_registers = REGISTERS // (-(-k["registers"] * 32 // 256) * 256) // warps
    by_shared = shared // (-(-k["shared"] // 128) * 128 + extra)
    return min(blocks, threads // (warps * 32), by_registers, by_shared)


def faults(k):
    if k["stack"]:
        yield f"a stack frame of {k['stack']} bytes (spills, or an array in local memory)"
    if not k["bound"]:
        yield "no __launch_bounds__"
    if k["bound"] * k["registers"] > REGISTERS:
        yield f"{k['bound']} threads of {k['registers']} registers are more than {REGISTERS}"


def demangle(names):
    lines = subprocess.run(["c++filt", "-p"], input="\n".join(names), text=True, check=True,
                           capture_output=True).stdout.splitlines()
    return dict(zip(names, lines))


def collect(build):
    rows = []
    for path in sorted(pathlib.Path(build).glob("**/fc_kernels.dir/kernels/cuda/*.cu.o")):
        for name, _, _, _, data in sections(path.read_bytes()):
            if name == ".nv_fatbin":
                for code in machine_codes(data):
                    arch, found = kernels(code)
                    rows += [(path.name[:-2], name, arch, k) for name, k in found.items()]
    readable = demangle([name for _, name, _, _ in rows])
    return sorted(((file, readable[name], arch, k) for file, name, arch, k in rows),
                  key=lambda row: row[:3])


def table(rows):
    yield "# Made by scripts/kernel_table.py from the machine code of a release build."
    yield "# regs: registers a thread. shared: static bytes a block. bound: threads a block at most."
    yield "# blocks, occ: blocks a multiprocessor holds at that bound, and the share of its threads"
    yield "# (without dynamic shared memory, which the launch asks for). A stack frame is a fault."
    yield f"{'arch':>6} {'regs':>4} {'shared':>6} {'stack':>5} {'bound':>5} {'blocks':>6} {'occ':>4}  kernel"
    last = None
    for file, name, arch, k in rows:
        if file != last:
            yield f"{file}:"
            last = file
        blocks = blocks_of(arch, k)
        share = 100 * blocks * k["bound"] // LIMITS.get(arch, LIMITS[90])[0]
        yield (f"{'sm_' + str(arch):>6} {k['registers']:4} {k['shared']:6} {k['stack']:5} "
               f"{k['bound']:5} {blocks:6} {share:3}%  {name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build")
    parser.add_argument("--output")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    rows = collect(args.build)
    if not rows:
        print(f"skipped: {args.build} holds no machine code of kernels (FEDCOT_CUDA_ARCHS)")
        return 77
    broken = [f"{file}: {name}, sm_{arch}: {fault}"
              for file, name, arch, k in rows for fault in faults(k)]
    text = "\n".join(table(rows)) + "\n"
    if args.output:
        pathlib.Path(args.output).write_text(text)
    elif not args.check:
        sys.stdout.write(text)
    print(f"{len(rows)} kernels and architectures, {len(broken)} faults", file=sys.stderr)
    for line in broken:
        print(line, file=sys.stderr)
    return 1 if args.check and broken else 0


sys.exit(main())
