#!/usr/bin/env python3
"""Makes smollm2_logits.safetensors: what transformers computes with SmolLM2-135M-Instruct in fp32.

    pip install torch transformers accelerate gguf safetensors
    python3 make_logits.py SmolLM2-135M-Instruct.Q4_1.gguf smollm2_logits.safetensors

The GGUF is dequantised to fp32 by transformers. For eight prompts: "prompt.I" ids [T], "logits.I"
fp32 [T, 96], the logits of every position at 96 ids spread over the vocabulary ("vocabulary", the
same for all). Used by tests/engine/test_logits_real.c.
"""
import os
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from make_generation import PROMPTS

CHOSEN = [0, 2, 3, 6, 9, 12, 16, 19]  # prose, code, other scripts, chat, a long one


def main() -> None:
    path = os.path.abspath(sys.argv[1])
    folder, name = os.path.split(path)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    vocabulary = torch.arange(96) * 512 + 7
    tensors = {"vocabulary": vocabulary.int()}
    with torch.no_grad():
        for i, chosen in enumerate(CHOSEN):
            ids = tokenizer(PROMPTS[chosen], add_special_tokens=False)["input_ids"]
            logits = model(torch.tensor([ids])).logits[0]
            tensors[f"prompt.{i}"] = torch.tensor(ids, dtype=torch.int32)
            tensors[f"logits.{i}"] = logits[:, vocabulary].contiguous()
    save_file(tensors, sys.argv[2])


if __name__ == "__main__":
    main()
