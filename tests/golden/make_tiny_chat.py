#!/usr/bin/env python3
"""Makes tiny-chat/: a random Qwen2 model of 160 thousand weights with a tokenizer and a chat format.

    pip install torch transformers gguf
    python3 make_tiny_chat.py SmolLM2-135M-Instruct.Q4_1.gguf tiny-chat

It knows nothing, but it is a whole model: tests of the program run jobs with it in seconds, under
sanitizers too. The tokenizer is tokenizer_qwen2.json (make_tokenizers.py), the chat template that
of the GGUF.
"""
import json
import pathlib
import shutil
import sys

import torch
from gguf import GGUFReader
from transformers import Qwen2Config, Qwen2ForCausalLM


def main() -> None:
    reader = GGUFReader(sys.argv[1])
    field = reader.fields["tokenizer.chat_template"]
    template = bytes(field.parts[field.data[0]]).decode()
    folder = pathlib.Path(sys.argv[2])
    torch.manual_seed(7)
    model = Qwen2ForCausalLM(Qwen2Config(
        vocab_size=1205, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=1202, pad_token_id=1200,
        initializer_range=0.08))
    model.to(torch.bfloat16).save_pretrained(folder)
    here = pathlib.Path(__file__).resolve().parent
    shutil.copyfile(here / "tokenizer_qwen2.json", folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "add_bos_token": False, "chat_template": template,
    }, indent=1) + "\n")


if __name__ == "__main__":
    main()
