#!/usr/bin/env python3
"""Measures candidate `predict` templates: how the default of models/task_templates.c was chosen.

    measure_templates.py FEDCOT MODEL DATA.jsonl [N]

runs `fedcot eval` with each candidate on the first N examples (default: all) and prints the
zero-shot accuracy with choices compared by the sum of their tokens' log-probabilities, by the mean
per token, and per byte. The figures that it gave are in docs/templates.md.
"""
import json
import os
import subprocess
import sys
import tempfile

TEMPLATES = {
    "the question alone": "{{question}}",
    "Q: A:": "Q: {{question}}\nA:",
    "Question: Answer:": "Question: {{question}}\nAnswer:",
    "Answer: alone": "{{question}}\nAnswer:",
    "The answer is": "Question: {{question}}\nThe answer is",
    "choices listed": "Question: {{question}}\nChoices: {{choices}}\nAnswer:",
}
DIVISORS = {"sum": lambda length, text: 1, "token": lambda length, text: length,
            "byte": lambda length, text: len(text.encode())}


def main(fedcot, model, data, limit=None):
    with open(data, encoding="utf-8") as f:
        examples = [json.loads(line) for line in f]
    examples = examples[:int(limit)] if limit else examples
    print(f"{len(examples)} examples, guessing "
          f"{100 * sum(1 / len(e['choices']) for e in examples) / len(examples):.1f} %")
    with tempfile.TemporaryDirectory() as folder:
        templates, scored = os.path.join(folder, "t.json"), os.path.join(folder, "e.jsonl")
        for name, text in TEMPLATES.items():
            with open(templates, "w", encoding="utf-8") as f:
                json.dump({"predict": text}, f)
            command = [fedcot, "eval", "--model", model, "--input", data, "--output", scored,
                       "--method", "likelihood", "--templates", templates]
            subprocess.run(command + (["--limit", limit] if limit else []), check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            with open(scored, encoding="utf-8") as f:
                found = {r["id"]: r for r in map(json.loads, f)}
            line = f"{name:20}"
            for norm, divisor in DIVISORS.items():
                right = 0
                for e in examples:
                    r = found[e["id"]]
                    values = [s / divisor(n, c)
                              for s, n, c in zip(r["scores"], r["lengths"], e["choices"])]
                    right += e["choices"][values.index(max(values))] == e["answer"]
                line += f"  {norm} {100 * right / len(examples):5.1f} %"
            print(line, flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(*sys.argv[1:])
