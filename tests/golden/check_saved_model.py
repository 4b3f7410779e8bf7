#!/usr/bin/env python3
"""Checks that transformers loads a directory written by fc_model_save as the model it came from.

    python tests/golden/check_saved_model.py SAVED ORIGINAL

ORIGINAL is a Hugging Face directory or a GGUF file (architectures llama and qwen2). Every parameter
must have the same bits (after rounding to the dtype of SAVED), none may be missing or left over, and
the logits of both models on random tokens must be the same bits. Exit status 0 if all is so. Needs
torch, transformers, safetensors, and gguf for a GGUF file.
"""
import os
import pathlib
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from transformers import AutoConfig, AutoModelForCausalLM

NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
         "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
         "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj"}


def load(path, **more):
    model, info = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True, **more)
    for what in "missing_keys", "unexpected_keys", "mismatched_keys":
        if info.get(what):
            sys.exit(f"{path}: {what}: {sorted(info[what])[:5]}")
    return model.eval()


def gguf_weights(path, config):
    """name -> fp32 tensor under Hugging Face's names, by the package gguf."""
    import gguf
    reader = gguf.GGUFReader(path)
    arch = reader.get_field("general.architecture").contents()
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {}
    for t in reader.tensors:
        if t.name == "rope_freqs.weight":
            continue
        data = gguf.quants.dequantize(t.data, t.tensor_type).reshape(tuple(t.shape[::-1]))
        stem, suffix = t.name.rsplit(".", 1)
        prefix = "model."
        if stem.startswith("blk."):
            _, layer, stem = stem.split(".")
            prefix = f"model.layers.{layer}."
        if arch == "llama" and stem in heads:
            data = data.reshape(heads[stem], -1, 2, data[0].size).swapaxes(1, 2).reshape(data.shape)
        name = NAMES[stem] if NAMES[stem].startswith(("model.", "lm_head")) else prefix + NAMES[stem]
        weights[f"{name}.{suffix}"] = torch.tensor(data)
    return weights


def main():
    saved, original = sys.argv[1:]
    model = load(saved)
    if pathlib.Path(original).is_dir():
        reference = load(original, dtype=model.dtype)
    else:
        config = AutoConfig.from_pretrained(saved)
        reference = AutoModelForCausalLM.from_config(config, dtype=model.dtype).eval()
        weights = gguf_weights(original, config)
        if config.tie_word_embeddings:
            weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
        reference.load_state_dict(weights)
    expected, found = reference.state_dict(), model.state_dict()
    if expected.keys() != found.keys():
        sys.exit(f"{saved}: other tensors than in {original}: {sorted(expected ^ found)[:5]}")
    for name, tensor in expected.items():
        if not torch.equal(tensor, found[name]):
            sys.exit(f"{saved}: {name} differs from {original}")
    ids = torch.randint(0, model.config.vocab_size, (2, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        if not torch.equal(model(ids).logits, reference(ids).logits):
            sys.exit(f"{saved}: logits differ from those of {original}")
    print(f"{saved}: {len(found)} tensors and the logits of {original}, in {model.dtype}")


main()
