#!/usr/bin/env python3
"""Makes the golden files of tests/models/test_tokenizer.c and test_chat.c.

Needs: tokenizers, transformers, jinja2, gguf and a SmolLM2 GGUF. Usage:

    make_tokenizers.py MODEL.gguf            writes tests/golden/tokenizer_*
    make_tokenizers.py --lines N             prints line N of the test text (repr)
    make_tokenizers.py --saved FOLDER MODEL.gguf
                                             AutoTokenizer of a folder written by fc_tokenizer_save
                                             against the GGUF, on all lines

The vocabularies are trained here on Python's own library and on the test text's kind of lines; the
pipelines around them are those of the published files of each family.
"""
import glob
import json
import os
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
M64 = (1 << 64) - 1
N_LINES, BLOCK, N_EXAMPLES = 10000, 100, 40
POOL = json.load(open(os.path.join(HERE, "tokenizer_pool.json"), encoding="utf-8"))


# ---- the test text: the same function as in tests/models/lines.h --------------------------------

class Random:
    """splitmix64"""

    def __init__(self, seed):
        self.s = seed & M64

    def next(self, n):
        self.s = (self.s + 0x9E3779B97F4A7C15) & M64
        z = self.s
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M64
        return ((z ^ (z >> 31)) >> 33) % n


def line(index):
    r = Random(index * 0x2545F4914F6CDD1D + 7)
    out = bytearray()
    for _ in range(1 + r.next(12)):
        kind = r.next(12)
        if kind in (0, 1, 2):
            if r.next(4):
                out += b" "
            words = POOL["words"]
            out += words[r.next(len(words))].encode()
        elif kind in (3, 4, 5):
            pool = POOL[("code", "spaces", "symbols")[kind - 3]]
            out += pool[r.next(len(pool))].encode()
        elif kind in (6, 7):
            first, last = POOL["ranges"][r.next(len(POOL["ranges"]))]
            for _ in range(1 + r.next(6)):
                out += chr(first + r.next(last - first + 1)).encode()
        elif kind == 8:
            for _ in range(1 + r.next(7)):
                out += b"%d" % r.next(10)
        elif kind == 9:
            specials = POOL["specials"]
            out += specials[r.next(len(specials))].encode()
        elif kind == 10:
            out += bytes([r.next(32)])
        else:
            for _ in range(1 + r.next(4)):
                out += bytes([0x80 + r.next(128)])
    return bytes(out)


def fnv(data, h=0xCBF29CE484222325):
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & M64
    return h


def id_bytes(ids):
    return b"".join(i.to_bytes(4, "little") for i in ids) + b"\xff\xff\xff\xff"


# ---- vocabularies --------------------------------------------------------------------------------

def corpus():
    files = sorted(glob.glob(os.path.dirname(os.__file__) + "/*.py"))[:60]
    for path in files:
        with open(path, encoding="utf-8", errors="replace") as f:
            yield f.read()
    for i in range(20000, 23000):
        yield line(i).decode("utf-8", "replace").replace("\0", "")  # no vocabulary has a NUL


GPT2_SPLIT = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
LLAMA3_REGEX = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
                r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2_REGEX = LLAMA3_REGEX.replace("{1,3}", "")


def split(regex):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(regex), "isolated", False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train(pre, normalizer, size, specials, alphabet=None):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre
    if normalizer:
        t.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet() if alphabet is None else alphabet
    t.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False,
        limit_alphabet=len(alphabet) + 200))
    return t


def byte_level(pre, normalizer, specials, added, first_special=False, ignore_merges=False):
    """A byte-level tokenizer; special tokens behind the vocabulary unless first_special."""
    t = train(pre, normalizer, 1200, specials if first_special else [])
    if ignore_merges:
        t.model.ignore_merges = True
        # A word that no merge makes: only the lookup of whole words finds it.
        model = json.loads(t.to_str())
        vocab = model["model"]["vocab"]
        vocab["\u0120question"] = len(vocab)
        model["model"]["merges"] = [m for m in model["model"]["merges"]
                                    if "".join(m) != "\u0120question"]
        t = Tokenizer.from_str(json.dumps(model))
    t.decoder = decoders.ByteLevel()
    if not first_special:
        t.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in specials])
    t.add_tokens(added)
    return t


def bos_processor(t, bos):
    t.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, t.token_to_id(bos))])


SPM_DECODER = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]


def sentencepiece(normalizer, pre, decoder, added):
    """Vocabulary in SentencePiece's order: <unk> <s> </s>, bytes, merged pieces, characters."""
    base = train(pre_tokenizers.Metaspace(prepend_scheme="always"), None, 900, [], [])
    trained = json.loads(base.to_str())["model"]
    pieces = sorted(trained["vocab"], key=trained["vocab"].get)
    merged = ["".join(m) for m in trained["merges"]]
    merged = [m for i, m in enumerate(merged) if m not in merged[:i]]
    chars = [p for p in pieces if p not in set(merged)]
    names = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + merged + chars
    vocab = {name: i for i, name in enumerate(names)}
    scores = [0.0] * 259 + [-float(i) for i in range(len(names) - 259)]
    merges = scored_merges(vocab, scores)
    t = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True,
                             byte_fallback=True))
    if normalizer:
        t.normalizer = normalizer
    if pre:
        t.pre_tokenizer = pre
    t.decoder = decoder
    t.add_special_tokens([AddedToken(s, normalized=False, special=True)
                          for s in ("<unk>", "<s>", "</s>")])
    t.add_tokens(added)
    bos_processor(t, "<s>")
    return t, names, scores


def scored_merges(vocab, scores):
    """As transformers.convert_slow_tokenizer.generate_merges."""
    skip = {"<unk>", "<s>", "</s>"}
    merges = []
    for piece, i in vocab.items():
        if piece in skip:
            continue
        local = [(piece[:k], piece[k:], scores[i]) for k in range(1, len(piece))
                 if piece[:k] in vocab and piece[k:] in vocab
                 and piece[:k] not in skip and piece[k:] not in skip]
        merges += sorted(local, key=lambda x: (vocab[x[0]], vocab[x[1]]))
    merges.sort(key=lambda m: (m[2], len(m[0]), len(m[1])), reverse=True)
    return [(a, b) for a, b, _ in merges]


# ---- GGUF ------------------------------------------------------------------------------------------

def gguf_fields(path):
    import gguf
    reader = gguf.GGUFReader(path)
    return {k: f.contents() for k, f in reader.fields.items() if k.startswith("tokenizer.")}


def smollm2(path):
    f = gguf_fields(path)
    tokens, types = f["tokenizer.ggml.tokens"], f["tokenizer.ggml.token_type"]
    merges = [tuple(m.split(" ", 1)) for m in f["tokenizer.ggml.merges"]]
    t = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(tokens)}, merges=merges))
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), GPT2_SPLIT])
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken(s, normalized=False, special=True)
                          for s, k in zip(tokens, types) if k == 3])
    return t, f["tokenizer.chat_template"]


def write_gguf(name, model, pre, tokens, types, merges=None, scores=None, bos=None, eos=None,
               template=None):
    """A GGUF that holds a tokenizer and no tensors."""
    import gguf
    w = gguf.GGUFWriter(os.path.join(HERE, name), "llama")
    w.add_tokenizer_model(model)
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types(types)
    if scores:
        w.add_token_scores(scores)
    if merges:
        w.add_token_merges(merges)
    if bos is not None:
        w.add_bos_token_id(bos)
    if eos is not None:
        w.add_eos_token_id(eos)
    if template:
        w.add_chat_template(template)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def byte_level_gguf(name, t, pre, bos, eos):
    state = json.loads(t.to_str())
    size = t.get_vocab_size(with_added_tokens=True)
    tokens, types = [t.id_to_token(i) for i in range(size)], [1] * size
    for a in state["added_tokens"]:
        types[a["id"]] = 3 if a["special"] else 4
    write_gguf(name, "gpt2", pre, tokens, types,
               merges=[" ".join(m) for m in state["model"]["merges"]],
               bos=t.token_to_id(bos), eos=t.token_to_id(eos))


# ---- golden numbers -------------------------------------------------------------------------------

def random_ids(index, size):
    r = Random(index * 31 + 5)
    return [r.next(size) for _ in range(1 + r.next(20))]


def goldens(t, name):
    """One hash per block of lines for each of: text, markup, decode, decode with specials, decode of
    random ids; and the ids themselves of the first lines."""
    size = t.get_vocab_size(with_added_tokens=True)
    blocks, examples = [], []
    h = [0xCBF29CE484222325] * 5
    for i in range(N_LINES):
        text = line(i).decode("utf-8", "replace")
        t.encode_special_tokens = True
        plain = t.encode(text, add_special_tokens=False).ids
        t.encode_special_tokens = False
        markup = t.encode(text, add_special_tokens=False).ids
        noise = random_ids(i, size)
        decoded = t.decode(markup)
        h[0] = fnv(id_bytes(plain), h[0])
        h[1] = fnv(id_bytes(markup), h[1])
        h[2] = fnv(decoded.encode() + b"\xff", h[2])
        h[3] = fnv(t.decode(markup, skip_special_tokens=False).encode() + b"\xff", h[3])
        h[4] = fnv(t.decode(noise, skip_special_tokens=False).encode() + b"\xff", h[4])
        if i < N_EXAMPLES:
            examples.append({"text": plain, "markup": markup, "decoded": decoded})
        if (i + 1) % BLOCK == 0:
            blocks.append([f"{x:016x}" for x in h])
            h = [0xCBF29CE484222325] * 5
    write_json(f"tokenizer_{name}_ids.json", {"size": size, "blocks": blocks, "examples": examples})


def nfc_golden():
    """Hash of the NFC of four strings about every code point, in blocks of 4096 code points."""
    import unicodedata
    blocks = []
    for first in range(0, 0x110000, 4096):
        h = 0xCBF29CE484222325
        for c in range(max(first, 1), first + 4096):
            if 0xD800 <= c < 0xE000:
                continue
            for text in (chr(c), "A" + chr(c), chr(c) + "\u0301", "a\u0323" + chr(c) + "\u0307"):
                h = fnv(unicodedata.normalize("NFC", text).encode() + b"\xff", h)
        blocks.append(f"{h:016x}")
    write_json("tokenizer_nfc.json", {"version": unicodedata.unidata_version, "blocks": blocks})


def write_json(name, tree):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as f:
        json.dump(tree, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")


def save(t, name, merges_as_strings=False):
    tree = json.loads(t.to_str())
    if merges_as_strings:
        tree["model"]["merges"] = [" ".join(m) for m in tree["model"]["merges"]]
    write_json(f"tokenizer_{name}.json", tree)
    again = Tokenizer.from_file(os.path.join(HERE, f"tokenizer_{name}.json"))
    assert again.get_vocab() == t.get_vocab()
    goldens(again, name)


# ---- chat ------------------------------------------------------------------------------------------

QWEN2_TEMPLATE = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\nYou are provided with function signatures within <tools></tools> XML tags:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\\n<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
LLAMA3_TEMPLATE = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
    "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + "
    "'<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")
ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation "
    "roles must alternate user/assistant/user/assistant/...') }}{% endif %}")
LLAMA2_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}" + ALTERNATE +
    "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + "
    "system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = "
    "message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + "
    "content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + "
    "content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}")


def mistral_template(after):
    return ("{{ bos_token }}{% for message in messages %}" + ALTERNATE +
            "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
            "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token" + after +
            "}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}"
            "{% endif %}{% endfor %}")


CONVERSATIONS = [
    [("user", "Hello")],
    [("user", "  What is 12345 + 678?\n\n ")],
    [("system", "Be brief."), ("user", "Wer bist du? \u4f60\u597d \U0001f600")],
    [("user", "a"), ("assistant", "b\n"), ("user", " c ")],
    [("system", " Think step by step.\n"), ("user", "one"), ("assistant", " two"),
     ("user", "'s three\u3000"), ("assistant", "four")],
    [("user", "")],
    [("user", "e\u0301 \u00a0x\x1f")],
]


def chat_goldens(cases):
    from transformers import PreTrainedTokenizerFast
    out = []
    for name, model, template, bos, eos, tokenizer in cases:
        tok = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos)
        tok.chat_template = template
        results = []
        for conversation in CONVERSATIONS:
            messages = [{"role": r, "content": c} for r, c in conversation]
            for reply in (False, True):
                try:
                    ids = tok.apply_chat_template(messages, add_generation_prompt=reply,
                                                  tokenize=True, return_dict=False)
                except Exception:  # the template refuses the roles
                    ids = None
                results.append({"messages": messages, "reply": reply, "ids": ids})
        out.append({"name": name, "tokenizer": model, "bos": bos, "eos": eos,
                    "template": template, "results": results})
    write_json("tokenizer_chat.json", out)


# ---- main ------------------------------------------------------------------------------------------

def check_saved(folder, gguf_path):
    from transformers import AutoTokenizer
    saved, (truth, template) = AutoTokenizer.from_pretrained(folder), smollm2(gguf_path)
    wrong = 0
    for i in range(N_LINES):
        text = line(i).decode("utf-8", "replace")
        wrong += saved.encode(text) != truth.encode(text).ids
        ids = truth.encode(text).ids
        wrong += saved.decode(ids) != truth.decode(ids, skip_special_tokens=False)
    print(type(saved).__name__, "bos", saved.bos_token, "eos", saved.eos_token, "pad",
          saved.pad_token, "unk", saved.unk_token, "template", saved.chat_template == template)
    print(f"{wrong} of {2 * N_LINES} differ")
    return wrong != 0


def main():
    if sys.argv[1] == "--lines":
        print(repr(line(int(sys.argv[2]))))
        return 0
    if sys.argv[1] == "--saved":
        return check_saved(sys.argv[2], sys.argv[3])

    nfc_golden()
    smol, smol_template = smollm2(sys.argv[1])
    goldens(smol, "smollm2")

    gpt2 = byte_level(GPT2_SPLIT, None, ["<|endoftext|>"], [
        AddedToken("<mask>", lstrip=True, special=True, normalized=False),
        AddedToken("<pad>", rstrip=True, special=True, normalized=False),
        AddedToken("  \n", normalized=True)], first_special=True)
    save(gpt2, "gpt2", merges_as_strings=True)

    llama3 = byte_level(split(LLAMA3_REGEX), None, [
        "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
        "<|eot_id|>"], [], ignore_merges=True)
    bos_processor(llama3, "<|begin_of_text|>")
    save(llama3, "llama3")
    byte_level_gguf("tokenizer_llama3.gguf", llama3, "llama-bpe", "<|begin_of_text|>",
                    "<|eot_id|>")

    qwen2 = byte_level(split(QWEN2_REGEX), normalizers.NFC(), [
        "<|endoftext|>", "<|im_start|>", "<|im_end|>"], [
            AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>",
                                                                    normalized=False)])
    save(qwen2, "qwen2")
    byte_level_gguf("tokenizer_qwen2.gguf", qwen2, "qwen2", "<|endoftext|>", "<|im_end|>")

    prepend = normalizers.Sequence([normalizers.Prepend("\u2581"),
                                    normalizers.Replace(" ", "\u2581")])
    llama2, names, scores = sentencepiece(
        prepend, None, decoders.Sequence(SPM_DECODER + [decoders.Strip(" ", 1, 0)]),
        [AddedToken("<tool_call>", normalized=True)])
    save(llama2, "llama2")

    spm, _, _ = sentencepiece(prepend, None,
                              decoders.Sequence(SPM_DECODER + [decoders.Strip(" ", 1, 0)]), [])
    write_gguf("tokenizer_spm.gguf", "llama", "default", names,
               [2, 3, 3] + [6] * 256 + [1] * (len(names) - 259), scores=scores, bos=1, eos=2)
    goldens(spm, "spm")

    mistral, _, _ = sentencepiece(
        None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False),
        decoders.Sequence(SPM_DECODER + [decoders.Strip(" ", 1, 0)]), [])
    save(mistral, "mistral")

    # The older form: words are cut at every space.
    metaspace, _, _ = sentencepiece(
        None, pre_tokenizers.Metaspace(prepend_scheme="always", split=True),
        decoders.Metaspace(prepend_scheme="always"), [])
    save(metaspace, "metaspace")

    chat_goldens([
        ("smollm2", "", smol_template, "<|im_start|>", "<|im_end|>", smol),
        ("qwen2", "qwen2", QWEN2_TEMPLATE, None, "<|im_end|>", qwen2),
        ("llama3", "llama3", LLAMA3_TEMPLATE, "<|begin_of_text|>", "<|eot_id|>", llama3),
        ("llama2", "llama2", LLAMA2_TEMPLATE, "<s>", "</s>", llama2),
        ("mistral 0.1", "mistral", mistral_template(" + ' ' "), "<s>", "</s>", mistral),
        ("mistral 0.2", "mistral", mistral_template(""), "<s>", "</s>", mistral),
    ])
    return 0


if __name__ == "__main__":
    sys.exit(main())
