"""
Training speed against PyTorch in eager mode: `python scripts/parity/train_speed.py`, after
`npx tsc -p .`. The same models, weights, batch (8 rows of 256 predictions), loss and threads, in
float32: forward, backward, gradient clipping and AdamW. The two take turns, step by step, so that a
busy machine slows both; medians count. Prints a table and appends a line to
bench/results/train-speed.jsonl.

PyTorch runs in its own best way: both kinds of attention (eager, and sdpa, the default of
transformers), and the fused AdamW. The ratio is to the faster kind.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parents[2]
CLIP_LOW, CLIP_HIGH, DUAL_CLIP = 0.8, 1.2, 3.0
ATTENTIONS = ["eager", "sdpa"]


class TorchModel:
    """One model in PyTorch; `step` is a whole training step."""

    def __init__(self, folder: Path, attention: str):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention)
        self.model.train()
        rows = json.loads((folder / "batch.json").read_text())
        self.tokens = torch.tensor([row["tokens"] for row in rows])
        column = lambda key: torch.tensor([row[key][1:] for row in rows])
        self.weights, self.advantages, self.old = column("weights"), column("advantages"), column("oldLogprobs")
        parameters = list(self.model.parameters())
        self.optimiser = torch.optim.AdamW(
            [{"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
             {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}], lr=1e-5, fused=True)

    def loss(self) -> torch.Tensor:
        logits = self.model(self.tokens[:, :-1], use_cache=False).logits
        targets = self.tokens[:, 1:]
        logp = -torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
        ratio = (logp - self.old).exp()
        lower = torch.minimum(ratio * self.advantages, ratio.clamp(CLIP_LOW, CLIP_HIGH) * self.advantages)
        objective = torch.where(self.advantages < 0, torch.maximum(lower, DUAL_CLIP * self.advantages), lower)
        return -(self.weights * objective).sum() / self.weights.sum()

    def step(self) -> dict:
        start = time.perf_counter()
        loss = self.loss()
        loss.backward()
        middle = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return {"loss": loss.item(), "gradient": middle - start, "optimiser": time.perf_counter() - middle}


class Ramify:
    """The process of bench/train-steps.ts."""

    def __init__(self, threads: int, folder: str):
        command = ["node", str(ROOT / "dist/bench/train-steps.js"), "--threads", str(threads), "--folder", folder]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.models = json.loads(self.process.stdout.readline())

    def step(self, name: str) -> dict:
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)


def gemm_peak(size: int = 1024, repeats: int = 10) -> float:
    """GFLOP/s of a square product in float32, the best of several."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def compare(name: str, ramify: Ramify, folder: Path, repeats: int) -> dict:
    models = {attention: TorchModel(folder, attention) for attention in ATTENTIONS}
    sides = {"ramify": lambda: ramify.step(name), **{key: model.step for key, model in models.items()}}
    times = {side: [] for side in sides}
    # The first two turns make sessions and warm caches.
    for turn in range(-2, repeats):
        losses = {}
        for side, step in sides.items():
            result = step()
            losses[side] = result["loss"]
            if turn >= 0:
                times[side].append(result)
        # Above all that the sides do the same work: the losses agree after every step.
        assert max(losses.values()) - min(losses.values()) < 1e-3, losses
    tokens = models["eager"].tokens[:, 1:].numel()
    median = lambda side, key: statistics.median(sum(t[k] for k in key) for t in times[side])
    rate = {side: tokens / median(side, ["gradient", "optimiser"]) for side in sides}
    best = max(rate[side] for side in ATTENTIONS)
    return {
        "model": name, "parameters": sum(p.numel() for p in models["eager"].model.parameters()),
        **{f"{side} tok/s": round(value) for side, value in rate.items()},
        **{f"{side} ms (gradients + AdamW)": [round(1000 * median(side, [k]), 1) for k in ("gradient", "optimiser")] for side in sides},
        "ratio": round(rate["ramify"] / best, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        ramify = Ramify(options.threads, folder)
        rows = [compare(name, ramify, Path(folder) / name, options.repeats) for name in ramify.models]
        ramify.close()
    record = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "threads": options.threads, "repeats": options.repeats,
        "loadAverage": load, "torch": torch.__version__, "transformers": transformers.__version__, "gemmPeakGflops": round(gemm_peak(), 1), "rows": rows,
    }
    with open(ROOT / "bench" / "results" / "train-speed.jsonl", "a", encoding="utf-8") as results:
        results.write(json.dumps(record) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
