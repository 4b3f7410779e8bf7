#!/usr/bin/env python3
"""Makes the small random models that the engine is tested on, and what PyTorch computes on them.

    python tests/golden/make_tiny_models.py [FOLDER]        # default: this script's folder

Needs torch, transformers and safetensors (made with torch 2.15, transformers 5.23, CPU). Writes

    tiny-llama/          tied, 3 layers, grouped KV heads, llama3 rope scaling
    tiny-llama-untied/   untied, head_dim unlike hidden_size / heads, linear rope scaling
    tiny-qwen2/          tied, biases of q, k and v

each with config.json, model.safetensors (fp32) and

golden.safetensors
    tokens.I, logits.I         three sequences of 7, 1 and 19 tokens: ids [T] and fp32 logits [T, V]
    micro.M.tokens             ids [T] of micro-batch M, sequences end to end
    micro.M.starts             [B + 1] first row of each sequence, and T
    micro.M.target_rows        rows whose logits are scored, ascending
    micro.M.target_ids         the token that each of them should predict
    micro.M.target_tasks       0 or 1
    grad.NAME                  d loss / d NAME in fp32, NAME as in model.safetensors
golden.json
    task_weights, task_targets, task_losses    loss = sum over tasks of weight * mean cross-entropy
                               over the task's targets of both micro-batches
    loss, grad_norm            in fp32
    bf16                       the same by PyTorch in pure bf16: loss, and the normalised squared
                               error (sum (a-b)^2 / sum b^2) of logits and of every gradient
    adamw                      ten steps on this batch with their settings: losses and gradient norms
                               before each step, and the norm of every parameter after the last
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

V = 300
COMMON = dict(vocab_size=V, max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
              pad_token_id=2, rms_norm_eps=1e-5)
MODELS = {
    "tiny-llama": (LlamaForCausalLM, LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, rope_theta=10000.0,
        # An original context of 64 puts frequencies into all three ranges: kept, blended, scaled.
        rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                      "high_freq_factor": 4.0, "original_max_position_embeddings": 64}, **COMMON)),
    "tiny-llama-untied": (LlamaForCausalLM, LlamaConfig(
        hidden_size=72, intermediate_size=64, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=3, head_dim=16, tie_word_embeddings=False, rope_theta=5000.0,
        rope_scaling={"rope_type": "linear", "factor": 2.0}, **COMMON)),
    "tiny-qwen2": (Qwen2ForCausalLM, Qwen2Config(
        hidden_size=64, intermediate_size=112, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, tie_word_embeddings=True, rope_theta=1000000.0, **COMMON)),
}
LENGTHS = [7, 1, 19]
MICRO_LENGTHS = [[11, 3, 17], [6, 23]]
TASK_WEIGHTS = [1.0, 0.5]
ADAMW = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
WEIGHT_DECAY, CLIP, STEPS = 0.1, 1.0, 10


def randomise(model, generator):
    """Weights large enough that gradients are not tiny; norms near, but not at, one."""
    for name, p in model.named_parameters():
        draw = torch.randn(p.shape, generator=generator)
        p.data = 1 + 0.1 * draw if "norm" in name else 0.08 * draw


def make_batch(generator):
    """Two packed micro-batches. In each sequence the tokens after a random point are targets (the
    prompt before it is not); the task alternates from sequence to sequence."""
    batch, task = [], 0
    for lengths in MICRO_LENGTHS:
        m = {"sequences": [], "starts": [0], "rows": [], "ids": [], "tasks": []}
        for n in lengths:
            ids = torch.randint(3, V, (n,), generator=generator)
            first = int(torch.randint(1, n, (1,), generator=generator))
            start = m["starts"][-1]
            for t in range(first, n):
                m["rows"].append(start + t - 1)
                m["ids"].append(int(ids[t]))
                m["tasks"].append(task)
            m["sequences"].append(ids)
            m["starts"].append(start + n)
            task = 1 - task
        batch.append(m)
    return batch


def logits_of(model, sequences):
    """Each sequence alone, so that no mask or padding is involved: [sum of lengths, V]."""
    return torch.cat([model(ids[None]).logits[0] for ids in sequences])


def backward(model, batch):
    """Gradients of the step's loss, accumulated over its micro-batches. Returns task losses."""
    counts = [sum(m["tasks"].count(k) for m in batch) for k in range(2)]
    losses = [0.0, 0.0]
    for m in batch:
        logits = logits_of(model, m["sequences"])[m["rows"]].float()
        ce = torch.nn.functional.cross_entropy(logits, torch.tensor(m["ids"]), reduction="none")
        tasks = torch.tensor(m["tasks"])
        weights = torch.tensor([TASK_WEIGHTS[k] / counts[k] for k in range(2)])[tasks]
        (weights * ce).sum().backward()
        for k in range(2):
            losses[k] += float(ce.detach()[tasks == k].double().sum()) / counts[k]
    return losses, counts


def total(losses):
    return sum(w * x for w, x in zip(TASK_WEIGHTS, losses))


def nmse(a, b):
    return float((a.double() - b.double()).square().sum() / b.double().square().sum())


def train(model, batch):
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": WEIGHT_DECAY},
                                   {"params": others, "weight_decay": 0.0}], **ADAMW)
    losses, norms = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        losses.append(total(backward(model, batch)[0]))
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)))
        optimizer.step()
    return {"lr": ADAMW["lr"], "beta1": ADAMW["betas"][0], "beta2": ADAMW["betas"][1],
            "eps": ADAMW["eps"], "weight_decay": WEIGHT_DECAY, "clip": CLIP, "losses": losses,
            "grad_norms": norms,
            "final_norms": {n: float(p.data.double().norm()) for n, p in model.named_parameters()}}


def make(folder, seed, cls, config):
    generator = torch.Generator().manual_seed(seed)
    model = cls(config).float().eval()
    randomise(model, generator)
    model.tie_weights()
    model.save_pretrained(folder)
    sequences = [torch.randint(0, V, (n,), generator=generator) for n in LENGTHS]
    batch = make_batch(generator)

    tensors = {}
    with torch.no_grad():
        for i, ids in enumerate(sequences):
            tensors[f"tokens.{i}"] = ids.int()
            tensors[f"logits.{i}"] = logits_of(model, [ids]).contiguous()
    for i, m in enumerate(batch):
        tensors[f"micro.{i}.tokens"] = torch.cat(m["sequences"]).int()
        for name, key in ("starts", "starts"), ("target_rows", "rows"), ("target_ids", "ids"), \
                ("target_tasks", "tasks"):
            tensors[f"micro.{i}.{name}"] = torch.tensor(m[key], dtype=torch.int32)
    losses, counts = backward(model, batch)
    grads = {n: p.grad.clone() for n, p in model.named_parameters()}
    tensors |= {f"grad.{n}": g.contiguous() for n, g in grads.items()}
    save_file(tensors, folder / "golden.safetensors")

    half = cls(config).eval()
    half.load_state_dict(model.state_dict())
    half = half.to(torch.bfloat16)
    half_losses, _ = backward(half, batch)
    with torch.no_grad():
        half_logits = logits_of(half, sequences)
    golden = {
        "task_weights": TASK_WEIGHTS, "task_targets": counts, "task_losses": losses,
        "loss": total(losses),
        "grad_norm": float(torch.stack([g.double().square().sum() for g in grads.values()])
                           .sum().sqrt()),
        "bf16": {"loss": total(half_losses),
                 "logits_nmse": nmse(half_logits, torch.cat([tensors[f"logits.{i}"]
                                                             for i in range(len(sequences))])),
                 "grad_nmse": {n: nmse(p.grad, grads[n]) for n, p in half.named_parameters()}},
        "adamw": train(model, batch),
    }
    (folder / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
    print(f"{folder.name}: loss {golden['loss']:.6f} (bf16 {golden['bf16']['loss']:.6f}), gradient "
          f"norm {golden['grad_norm']:.4f}, after ten steps {golden['adamw']['losses'][-1]:.6f}")


def main():
    torch.set_num_threads(1)
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__).absolute()
    root = root if root.is_dir() else root.parent
    for seed, (name, (cls, config)) in enumerate(MODELS.items(), start=1):
        folder = root / name
        folder.mkdir(exist_ok=True)
        make(folder, seed, cls, config)


main()
