#!/usr/bin/env python3
"""Makes dequant.safetensors: a few blocks of every weight format of GGUF, and the fp32 values that
the PyPI package `gguf` (gguf.quants.dequantize; made with 0.19) expands them to.

    python tests/golden/make_dequant.py

Needs numpy, gguf and safetensors. Tensors: TYPE.blocks (bytes) and TYPE.values (fp32). All bytes are
random except half-precision scales, which are drawn so that no value is NaN or infinite: ordinary
ones, subnormal ones, zero and negative ones.
"""
import pathlib

import gguf
import numpy as np
from safetensors.numpy import save_file

# Byte offsets of the half-precision fields of a block.
HALVES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82],
          "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
SPECIAL = np.array([0.0, -0.0, 6e-8, -3e-6, 6.1e-5, 1.0, -2.5, 600.0], dtype=np.float16)

rng = np.random.default_rng(7)
tensors = {}
for name in ["F32", "F16", "BF16", *HALVES]:
    kind = gguf.GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    n = {1: 256, 32: 16, 256: 4}[block]
    data = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for at in HALVES.get(name, []):
        scales = (rng.standard_normal(n) * 0.02).astype(np.float16)
        scales[:len(SPECIAL)] = np.roll(SPECIAL, at)[:n]
        data[:, at:at + 2] = scales.view(np.uint8).reshape(n, 2)
    values = gguf.quants.dequantize(data.reshape(-1), kind).reshape(-1)
    if block == 1:  # random bytes of plain numbers hold NaNs, whose bits are nobody's promise
        data = data[np.isfinite(values)]
        values = values[np.isfinite(values)]
    assert np.isfinite(values).all(), name
    tensors[f"{name}.blocks"] = data.reshape(-1)
    tensors[f"{name}.values"] = values.astype(np.float32)
save_file(tensors, pathlib.Path(__file__).absolute().with_name("dequant.safetensors"))
print({k: v.shape for k, v in tensors.items()})
