"""
The policy loss in PyTorch with the gradients of autograd, for full training and for LoRA adapters
made and saved by peft, and AdamW over 20 steps. The loss is written here from the paper's formula,
apart from ramify's code. Gradients are computed in float64: the reference should have no rounding
of its own to speak of. AdamW runs in float32, like the weights that it changes.
"""

import json
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from parity_checkpoints import expected_greedy
from parity_common import FIXTURES, fresh_folder, generator, write_json, write_tensors

CLIP = {"epsLow": 0.2, "epsHigh": 0.28, "dualClip": 3.0}
# Every side of every bound: below and above the clip range, above the dual clip, and inside.
RATIOS = [0.4, 0.75, 0.9, 1.0, 1.15, 1.35, 2.0, 2.9, 3.2, 5.0]
LENGTHS = [20, 13, 9]
FULL = ["llama-mqa", "qwen2-tied", "qwen3", "llama3-rope-tied"]

ADAPTERS = {
    "llama-r4": ("llama-mqa", {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}),
    "llama-r1-mlp": ("llama2", {"r": 1, "lora_alpha": 3, "target_modules": ["gate_proj", "up_proj", "down_proj"]}),
    "qwen2-rslora": ("qwen2-tied", {"r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": "all-linear"}),
    "qwen3-patterns": ("qwen3", {"r": 2, "lora_alpha": 5, "target_modules": ["q_proj", "k_proj", "up_proj"], "layers_to_transform": [1],
                                 "rank_pattern": {"k_proj": 3}, "alpha_pattern": {"up_proj": 7}}),
    "qwen3-r8": ("qwen3", {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "k_proj", "o_proj", "down_proj"]}),
}

ADAMW = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weightDecay": 0.01}
MAX_NORM = 1.0
STEPS = 20
WARMUP = 5


def load(name: str, dtype: torch.dtype) -> torch.nn.Module:
    model = AutoModelForCausalLM.from_pretrained(FIXTURES / "models" / name, dtype=dtype, attn_implementation="eager")
    return model.eval()


def token_logprobs(model: torch.nn.Module, tokens: list[int]) -> torch.Tensor:
    """ln p of tokens[1:], each given those before it: (n - 1)."""
    ids = torch.tensor([tokens])
    logits = model(ids[:, :-1]).logits[0]
    return logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]


def arpo_loss(model: torch.nn.Module, rows: list[dict], clip: dict) -> torch.Tensor:
    """- sum w l / sum w, l = min(r A, clip(r) A), and for A < 0 max(l, dualClip A)."""
    total, weight_sum = 0.0, 0.0
    for row in rows:
        logp = token_logprobs(model, row["tokens"])
        column = lambda key: torch.tensor(row[key][1:], dtype=logp.dtype)
        ratio = (logp - column("oldLogprobs")).exp()
        advantage = column("advantages")
        clipped = ratio.clamp(1 - clip["epsLow"], 1 + clip["epsHigh"])
        lower = torch.minimum(ratio * advantage, clipped * advantage)
        objective = torch.where(advantage < 0, torch.maximum(lower, clip["dualClip"] * advantage), lower)
        total = total + (column("weights") * objective).sum()
        weight_sum = weight_sum + column("weights").sum()
    return -total / weight_sum


def make_rows(model: torch.nn.Module, name: str) -> list[dict]:
    """Rows whose ratios and advantages visit every case of the loss; some tokens weigh nothing."""
    random = generator(name + " training rows")
    rows, pair = [], 0
    for length in LENGTHS:
        tokens = random.integers(0, model.config.vocab_size, length).tolist()
        with torch.no_grad():
            logp = token_logprobs(model, tokens).double().numpy()
        row = {"tokens": tokens, "weights": [0.0], "advantages": [0.0], "oldLogprobs": [0.0]}
        for t in range(1, length):
            sign = 1 if (pair // len(RATIOS)) % 2 == 0 else -1
            ratio = RATIOS[pair % len(RATIOS)]
            pair += 1
            row["weights"].append([1.0, 1.0, 1.0, 0.0, 0.625][int(random.integers(5))])
            row["advantages"].append(float(np.float32(sign * random.uniform(0.2, 2))))
            row["oldLogprobs"].append(float(np.float32(logp[t - 1] - np.log(ratio))))
        rows.append(row)
    return rows


def with_gradients(model: torch.nn.Module, rows: list[dict]) -> tuple[float, dict]:
    model.zero_grad()
    loss = arpo_loss(model, rows, CLIP)
    loss.backward()
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return loss.item(), trained


def full_gradients() -> None:
    fresh_folder("gradients")
    for name in FULL:
        model = load(name, torch.float64)
        rows = make_rows(model, name)
        loss, gradients = with_gradients(model, rows)
        folder = FIXTURES / "gradients"
        write_json(folder / f"{name}.json", {"model": name, "clip": CLIP, "rows": rows, "loss": loss}, indent=None)
        write_tensors(folder / f"{name}.safetensors", gradients)


def make_adapters() -> None:
    fresh_folder("adapters")
    for name, (base, settings) in ADAPTERS.items():
        folder = fresh_folder("adapters", name)
        model = get_peft_model(load(base, torch.float32), LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **settings))
        random = generator(name)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_" in key:
                    values = 0.5 * random.standard_normal(tuple(parameter.shape)) / np.sqrt(settings["r"])
                    parameter.copy_(torch.from_numpy(values.astype(np.float32)))
        model.eval()
        model.save_pretrained(folder)
        (folder / "README.md").unlink()
        (folder / "adapter_model.safetensors").chmod(0o644)
        settle_config(folder / "adapter_config.json", base)
        ids = random.integers(0, model.config.vocab_size, 24).tolist()
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        greedy = expected_greedy(model, name, 10)
        model.double()
        rows = make_rows(model, name)
        loss, gradients = with_gradients(model, rows)
        expected = {"base": base, "ids": ids, "greedy": greedy, "clip": CLIP, "rows": rows, "loss": loss}
        write_json(folder / "expected.json", expected, indent=None)
        gradients = {key.replace(".default.", "."): value for key, value in gradients.items()}
        write_tensors(folder / "expected.safetensors", {"logits": logits, **gradients})


def settle_config(path: Path, base: str) -> None:
    """The base as seen from the adapter, wherever the folder lies; sets have no order."""
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = f"../../models/{base}"
    config["target_modules"] = sorted(config["target_modules"])
    write_json(path, config, indent=2)


def torch_adamw(parameters: dict, learning_rate: float) -> torch.optim.AdamW:
    """Decay on matrices only, as ramify has it."""
    groups = [
        {"params": [p for p in parameters.values() if p.ndim > 1], "weight_decay": ADAMW["weightDecay"]},
        {"params": [p for p in parameters.values() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (ADAMW["beta1"], ADAMW["beta2"])
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=ADAMW["epsilon"], foreach=False)


def adamw_step(optimiser: torch.optim.AdamW, parameters: dict, learning_rate: float, step: int) -> float:
    """Clip, linear warm-up, update; the norm before clipping."""
    norm = torch.nn.utils.clip_grad_norm_(parameters.values(), MAX_NORM)
    for group in optimiser.param_groups:
        group["lr"] = learning_rate * min(1, (step + 1) / WARMUP)
    optimiser.step()
    return float(norm)


def adamw_alone(learning_rate: float = 0.01) -> None:
    """Given gradients of very different sizes, some so large that they are clipped."""
    random = generator("adamw")
    shapes = {"embedding.weight": (9, 8), "linear.weight": (7, 8), "linear.bias": (7,), "norm.weight": (8,)}
    draw = lambda shape, scale: torch.from_numpy((scale * random.standard_normal(shape)).astype(np.float32))
    parameters = {name: torch.nn.Parameter(draw(shape, 1.0)) for name, shape in shapes.items()}
    tensors = {f"start:{name}": p.detach().clone() for name, p in parameters.items()}
    optimiser = torch_adamw(parameters, learning_rate)
    norms = []
    for step in range(STEPS):
        scale = [1e-6, 0.01, 0.05, 1.0, 30.0][step % 5]
        for name, parameter in parameters.items():
            parameter.grad = draw(shapes[name], scale)
            tensors[f"gradient.{step}:{name}"] = parameter.grad.clone()
        norms.append(adamw_step(optimiser, parameters, learning_rate, step))
    tensors |= {f"end:{name}": p.detach() for name, p in parameters.items()}
    write_adamw("alone", {"learningRate": learning_rate, "norms": norms}, tensors)


def adamw_training(name: str = "qwen2-tied", learning_rate: float = 1e-4) -> None:
    """20 whole training steps of a model: forward, loss, backward, clip, AdamW."""
    model = load(name, torch.float32)
    parameters = dict(model.named_parameters())
    optimiser = torch_adamw(parameters, learning_rate)
    batches = [make_rows(model, f"{name} {index}") for index in range(4)]
    losses = []
    for step in range(STEPS):
        optimiser.zero_grad()
        loss = arpo_loss(model, batches[step % len(batches)], CLIP)
        loss.backward()
        losses.append(loss.item())
        adamw_step(optimiser, parameters, learning_rate, step)
    facts = {"model": name, "learningRate": learning_rate, "clip": CLIP, "batches": batches, "losses": losses}
    write_adamw("training", facts, {f"end:{key}": p for key, p in parameters.items()})


def write_adamw(name: str, facts: dict, tensors: dict) -> None:
    folder = FIXTURES / "adamw"
    settings = {**ADAMW, "maxNorm": MAX_NORM, "steps": STEPS, "warmupSteps": WARMUP}
    write_json(folder / f"{name}.json", {"settings": settings, **facts}, indent=None)
    write_tensors(folder / f"{name}.safetensors", tensors)


def make_gradients() -> None:
    full_gradients()
    make_adapters()
    fresh_folder("adamw")
    adamw_alone()
    adamw_training()
