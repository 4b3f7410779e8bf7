#!/usr/bin/env python3
"""Zero-shot accuracy of candidate `predict` templates: how the defaults of models/template.c were
chosen.

    measure_templates.py MODEL.gguf DATA.jsonl [--questions N] [--seed S]

Each choice is scored as the continuation " CHOICE" of the rendered prompt: by the sum of its
tokens' log-probabilities, by their mean per token, and per byte. Needs torch and transformers.
"""
import argparse
import json
import os
import random

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TEMPLATES = {
    "question": "{question}",
    "q-a": "Q: {question}\nA:",
    "question-answer": "Question: {question}\nAnswer:",
    "answer": "{question}\nAnswer:",
    "the-answer-is": "Question: {question}\nThe answer is",
    "listed": "Question: {question}\nChoices: {choices}\nAnswer:",
    "lettered": "Question: {question}\n{letters}\nAnswer:",
}
NORMS = ("sum", "token", "byte")


def scores(model, tok, prompt, choices):
    """Log-probability and token count of each choice after the prompt."""
    head = tok.encode(prompt, add_special_tokens=False)
    tails = [tok.encode(" " + c, add_special_tokens=False) for c in choices]
    width = max(len(t) for t in tails)
    ids = torch.tensor([head + t + [0] * (width - len(t)) for t in tails])
    with torch.inference_mode():
        logits = model(ids, logits_to_keep=width + 1).logits[:, :-1].float()
    logp = torch.log_softmax(logits, -1)
    return [(sum(logp[i, j, t].item() for j, t in enumerate(tail)), len(tail))
            for i, tail in enumerate(tails)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    folder, file = os.path.split(args.model)
    tok = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    with open(args.data, encoding="utf-8") as f:
        records = [json.loads(line) for line in f]
    records = random.Random(args.seed).sample(records, min(args.questions, len(records)))

    chance = sum(1 / len(r["choices"]) for r in records) / len(records)
    print(f"{args.data}: {len(records)} questions, chance {100 * chance:.1f} %", flush=True)
    for name, template in TEMPLATES.items():
        right = dict.fromkeys(NORMS, 0)
        for r in records:
            letters = "\n".join(f"{chr(65 + i)}. {c}" for i, c in enumerate(r["choices"]))
            prompt = template.format(question=r["question"], choices=", ".join(r["choices"]),
                                     letters=letters)
            texts = [chr(65 + i) for i in range(len(r["choices"]))] if name == "lettered" \
                else r["choices"]
            found = scores(model, tok, prompt, texts)
            value = {"sum": [s for s, _ in found],
                     "token": [s / n for s, n in found],
                     "byte": [s / len(c.encode()) for (s, _), c in zip(found, texts)]}
            label = r["choices"].index(r["answer"])
            for norm in NORMS:
                right[norm] += max(range(len(texts)), key=value[norm].__getitem__) == label
        line = "  ".join(f"{norm} {100 * right[norm] / len(records):5.1f} %" for norm in NORMS)
        print(f"{name:16} {line}", flush=True)


if __name__ == "__main__":
    main()
