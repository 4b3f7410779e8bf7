#!/usr/bin/env python3
"""Makes tiny-llama.gguf (Q8_0) and tiny-qwen2.gguf (BF16) from the tiny models in this folder, as
llama.cpp's converter would: its tensor names, its order of Llama's q and k rows, llama3 scaling as
frequency factors, norms and biases in F32.

    python tests/golden/make_tiny_gguf.py

Needs numpy, gguf and safetensors.
"""
import json
import math
import pathlib

import gguf
import numpy as np
from safetensors.numpy import load_file

HERE = pathlib.Path(__file__).absolute().parent
NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
         "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
         "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down"}


def interleave(rows, heads):
    """Within each head: row i of the first half, row i of the second half, row i + 1 ..."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(rows.shape)


def rope_factors(config):
    rope, size = config["rope_parameters"], config["head_dim"]
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    factors = []
    for i in range(0, size, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / size)
        if wavelength < high:
            factors.append(1.0)
        elif wavelength > low:
            factors.append(rope["factor"])
        else:
            smooth = (rope["original_max_position_embeddings"] / wavelength -
                      rope["low_freq_factor"]) / (rope["high_freq_factor"] -
                                                  rope["low_freq_factor"])
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def convert(name, arch, kind):
    config = json.loads((HERE / name / "config.json").read_text())
    weights = load_file(HERE / name / "model.safetensors")
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    w = gguf.GGUFWriter(HERE / f"{name}.gguf", arch)
    w.add_block_count(config["num_hidden_layers"])
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(config["hidden_size"])
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    w.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    w.add_bos_token_id(config["bos_token_id"])
    w.add_eos_token_id(config["eos_token_id"])
    w.add_pad_token_id(config["pad_token_id"])
    if config["rope_parameters"]["rope_type"] == "llama3":
        w.add_tensor("rope_freqs.weight", rope_factors(config))
    for full, data in weights.items():
        stem, suffix = full.rsplit(".", 1)
        if arch == "llama" and "q_proj" in stem:
            data = interleave(data, heads)
        if arch == "llama" and "k_proj" in stem:
            data = interleave(data, kv_heads)
        if stem.startswith("model.layers."):
            _, _, layer, stem = stem.split(".", 3)
            short = f"blk.{layer}.{NAMES[stem]}.{suffix}"
        else:
            short = f"{NAMES[stem]}.{suffix}"
        if data.ndim == 1:
            w.add_tensor(short, data)
        else:
            w.add_tensor(short, gguf.quants.quantize(data, kind), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


convert("tiny-llama", "llama", gguf.GGMLQuantizationType.Q8_0)
convert("tiny-qwen2", "qwen2", gguf.GGMLQuantizationType.BF16)
