"""Looks for secrets in bytes, in every spelling in which they might have got there."""
import base64
import json
import subprocess
import urllib.parse


PART = 1 << 16


def spellings_of_text(text):
    """Ways to write a text; all of them are sought in lower case."""
    raw = text.encode()
    yield raw
    yield json.dumps(text)[1:-1].encode()
    yield urllib.parse.quote(text).encode()
    yield urllib.parse.quote_plus(text).encode()
    yield text.encode("utf-16-le")
    yield text.encode("utf-32-le")
    yield from spellings_of_bytes(raw)


def spellings_of_bytes(raw):
    yield raw
    yield raw[::-1]
    yield raw.hex().encode()
    yield b" ".join(b"%02x" % b for b in raw)
    for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):  # wherever it begins within a longer text
            code = alphabet(b"\0" * shift + raw)
            head = 0 if shift == 0 else 4
            yield code[head:len(raw) * 4 // 3 // 4 * 4]


class Scan:
    """secrets: name -> list of texts (str) or keys (bytes). `tool`: tool_scan, which does the search;
    `needles`: a file for it."""

    def __init__(self, tool, needles, secrets):
        ways = {}
        for name, values in secrets.items():
            for value in values:
                is_text = isinstance(value, str)
                for way in spellings_of_text(value) if is_text else spellings_of_bytes(value):
                    if len(way) >= 6:
                        ways.setdefault(way.lower(), (name, value if is_text else "(its bytes)"))
        self.found = list(ways.values())
        self.command = [tool, str(needles)]
        self.bytes_seen = 0
        with open(needles, "w") as out:
            out.writelines(way.hex() + "\n" for way in ways)

    def look(self, data, exempt=()):
        """(name, secret) of everything found. ASCII letters count as equal to their capitals."""
        self.bytes_seen += len(data)
        out = subprocess.run(self.command, input=data, stdout=subprocess.PIPE, check=True).stdout
        hits = {self.found[int(line)] for line in out.split()}
        return sorted(hit for hit in hits if hit[0] not in exempt)

    def look_in_file(self, path, exempt=()):
        with open(path, "rb") as f:
            return self.look(f.read(), exempt)


def memory_of(pid, most=1 << 31):
    """The writable memory of a process, end to end, without zeros. None where it may not be read or is
    too much (sanitizers reserve terabytes)."""
    try:
        regions = []
        with open("/proc/%d/maps" % pid) as maps:
            for line in maps:
                span, modes = line.split()[:2]
                begin, end = (int(x, 16) for x in span.split("-"))
                if modes.startswith("rw"):
                    regions.append((begin, end))
        if sum(end - begin for begin, end in regions) > most:
            return None
        memory = bytearray()
        with open("/proc/%d/mem" % pid, "rb", 0) as f:
            for begin, end in regions:
                try:
                    f.seek(begin)
                    while begin < end and (part := f.read(min(end - begin, PART))):
                        begin += len(part)
                        if part.count(0) < len(part):  # most was never touched
                            memory += part
                    memory += b"\0" * 16
                except OSError:
                    pass  # a guard page or a device
        return memory
    except OSError:
        return None
