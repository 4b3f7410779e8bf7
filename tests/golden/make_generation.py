#!/usr/bin/env python3
"""Makes generation.json: what transformers computes with SmolLM2-135M-Instruct in fp32.

    pip install torch transformers accelerate gguf
    python3 make_generation.py SmolLM2-135M-Instruct.Q4_1.gguf > generation.json

The GGUF is dequantised to fp32 by transformers. Greedy: 20 prompts, 64 tokens each, by a plain
argmax loop (end tokens do not end it, the lowest id wins a tie); "margin" is the smallest distance
between the two highest logits on the way, to tell a wrong kernel from a tie. Scores: the sum of
log-probabilities of every choice after its prompt, by one pass over the whole sequence in fp32 and
log-softmax in fp64. Token ids are transformers' own, so that this golden does not depend on our
tokenizer. Used by tests/engine/test_generate_real.c.
"""
import json
import os
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TOKENS = 64

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village at the foot of a mountain, there lived",
    "Question: Where would you put a plate after washing it?\nAnswer:",
    "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    "#include <stdio.h>\n\nint main(int argc, char **argv)\n{\n",
    "SELECT name, COUNT(*) FROM orders",
    "Die Hauptstadt von Deutschland ist",
    "Il était une fois une petite fille qui",
    "El agua hierve a una temperatura de",
    "東京は日本の",
    "Москва является",
    "1, 1, 2, 3, 5, 8, 13,",
    "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    "List three uses of a paper clip.<|im_end|>\n<|im_start|>assistant\n",
    "To be, or not to be, that is the question:",
    "The mitochondria is the powerhouse of the cell because",
    "{\"name\": \"Alice\", \"age\": 31, \"city\":",
    "Dear Sir or Madam,\n\nI am writing to",
    "x",
    "A train leaves the station at 9:15 and travels at 80 km/h. A second train leaves the same "
    "station half an hour later and travels in the same direction at 100 km/h. When does the second "
    "train catch up with the first? Let us think step by step. In the first half hour",
]

SCORES = [
    ("Question: Where would you put a plate after washing it?\nAnswer:",
     [" cupboard", " dishwasher", " floor", " table", " a shelf in the kitchen"]),
    ("Question: What do people use to cut bread?\nAnswer:",
     [" knife", " spoon", " a bread knife", " a bread machine", " paper"]),
    ("The opposite of hot is", [" cold", " warm", " very cold", " wet"]),
    ("Two plus two equals", [" four", " five", " 4", " twenty-two"]),
    ("In winter the lake is covered with", [" ice", " sand", " ice and snow", " fire"]),
    ("Q: Is the sun a star? A:", [" yes", " no"]),
    ("Le chat est sur la", [" table", " chaise", " lune", " table de la cuisine"]),
    ("x", [" y", "\n", " = 1"]),
]


def main() -> None:
    path = os.path.abspath(sys.argv[1])
    folder, name = os.path.split(path)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    greedy, scores = [], []
    with torch.no_grad():
        for text in PROMPTS:
            prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
            ids, cache, out, margin = torch.tensor([prompt]), None, [], float("inf")
            for _ in range(TOKENS):
                step = model(ids, past_key_values=cache, use_cache=True)
                cache, logits = step.past_key_values, step.logits[0, -1]
                top = torch.topk(logits, 2).values
                margin = min(margin, float(top[0] - top[1]))
                out.append(int(torch.argmax(logits)))
                ids = torch.tensor([[out[-1]]])
            greedy.append({"text": text, "prompt": prompt, "tokens": out,
                           "margin": round(margin, 6)})
        for text, choices in SCORES:
            prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
            item = {"text": text, "prompt": prompt, "choices": []}
            for choice in choices:
                tokens = tokenizer(choice, add_special_tokens=False)["input_ids"]
                logits = model(torch.tensor([prompt + tokens])).logits[0].double()
                log_p = torch.log_softmax(logits, -1)
                total = sum(float(log_p[len(prompt) - 1 + i, t]) for i, t in enumerate(tokens))
                item["choices"].append({"text": choice, "tokens": tokens,
                                        "log_prob": round(total, 7)})
            scores.append(item)
    lines = lambda items: ",\n".join("  " + json.dumps(i, ensure_ascii=False) for i in items)
    print("{\n \"greedy\": [\n%s\n ],\n \"scores\": [\n%s\n ]\n}" % (lines(greedy), lines(scores)))


if __name__ == "__main__":
    main()
