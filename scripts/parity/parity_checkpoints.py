"""
Random-weight checkpoints of every model family and option, saved by transformers, with what
transformers computes from them: float32 logits under eager attention, and a greedy continuation
with its log-probabilities and entropies. Each checkpoint is a folder as users have them.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
)

from parity_common import fill_weights, fresh_folder, generator, write_json, write_tensors

VOCABULARY = 96
CONTEXT = 256
GREEDY_TOKENS = 24
# A greedy choice closer than this could go the other way by rounding alone.
GREEDY_GAP = 0.01

CONFIGS = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}


@dataclass
class Case:
    name: str
    family: str
    config: dict = field(default_factory=dict)
    stored: str = "f32"
    shards: bool = False
    # Rows of the logits fixture; rope scaling needs positions beyond the original window.
    lengths: tuple[int, ...] = (24, 17)
    prompt: int = 12
    generation: dict = field(default_factory=dict)


LONG = {"lengths": (200,), "prompt": 150}
CASES = [
    Case("llama2", "llama", {"num_key_value_heads": 4, "rms_norm_eps": 1e-5}),
    Case("llama-gqa-tied", "llama", {"tie_word_embeddings": True}, stored="bf16"),
    Case("llama-mqa", "llama", {"num_key_value_heads": 1}, stored="f16"),
    Case("llama-head-dim", "llama", {"head_dim": 12}, stored="bf16"),
    Case("llama-theta", "llama", {"rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}},
         stored="bf16", generation={"eos_token_id": [2, 5], "temperature": 0.6, "top_p": 0.9, "do_sample": True}),
    Case("llama3-rope", "llama", {"head_dim": 16, "rope_parameters": LLAMA3}, stored="bf16", **LONG),
    Case("llama3-rope-tied", "llama",
         {"head_dim": 16, "tie_word_embeddings": True,
          "rope_parameters": {**LLAMA3, "rope_theta": 500000.0, "factor": 32.0, "original_max_position_embeddings": 32}},
         stored="bf16", **LONG),
    Case("llama-linear", "llama",
         {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}}, stored="bf16", **LONG),
    Case("llama-yarn", "llama",
         {"head_dim": 16, "rope_parameters": {**YARN, "original_max_position_embeddings": 64}}, stored="f16", **LONG),
    Case("qwen2-yarn", "qwen2",
         {"rope_parameters": {**YARN, "rope_theta": 1000000.0, "factor": 8.0, "original_max_position_embeddings": 32}},
         stored="bf16", **LONG),
    Case("qwen3-yarn-betas", "qwen3",
         {"head_dim": 16, "rope_parameters":
          {**YARN, "original_max_position_embeddings": 64, "beta_fast": 16.0, "beta_slow": 2.0, "attention_factor": 1.2}},
         stored="bf16", **LONG),
    Case("llama-yarn-mscale", "llama",
         {"head_dim": 16, "rope_parameters":
          {**YARN, "original_max_position_embeddings": 64, "mscale": 0.8, "mscale_all_dim": 0.5, "truncate": False}},
         stored="bf16", **LONG),
    Case("qwen2", "qwen2", {}, stored="f32"),
    Case("qwen2-tied", "qwen2", {"tie_word_embeddings": True, "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"}},
         stored="bf16", generation={"eos_token_id": [3, 1], "pad_token_id": 1, "repetition_penalty": 1.1,
                                    "temperature": 0.7, "top_p": 0.8, "top_k": 20, "do_sample": True}),
    Case("qwen2-sharded", "qwen2", {}, stored="f16", shards=True),
    Case("qwen2-mha", "qwen2", {"num_key_value_heads": 4}, stored="f16"),
    Case("qwen3", "qwen3", {"head_dim": 8}, stored="f32"),
    Case("qwen3-head-dim-tied", "qwen3", {"head_dim": 16, "tie_word_embeddings": True}, stored="bf16"),
    Case("qwen3-sharded", "qwen3", {"head_dim": 16}, stored="bf16", shards=True),
    Case("qwen3-linear", "qwen3",
         {"head_dim": 8, "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
         stored="f16", **LONG),
]


def build_model(case: Case) -> torch.nn.Module:
    """The model of a case with its weights rounded to the stored type, held in float32."""
    config = CONFIGS[case.family](**{
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT,
        "bos_token_id": 1, "eos_token_id": 2, **case.config,
    })
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    fill_weights(model, case.name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(DTYPES[case.stored]).float())
    return model.eval()


def save_checkpoint(model: torch.nn.Module, case: Case, folder: Path) -> None:
    """As transformers saves it, in the stored type; also config.json with the keys of version 4."""
    model.generation_config.update(**case.generation)
    stored = AutoModelForCausalLM.from_config(model.config, dtype=DTYPES[case.stored])
    stored.load_state_dict(model.state_dict())
    stored.generation_config = model.generation_config
    stored.save_pretrained(folder, max_shard_size="12KB" if case.shards else "1GB")
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.v4.json", version4(config, old_type_key=case.family == "qwen2"), indent=2)


def version4(config: dict, old_type_key: bool) -> dict:
    """
    The same model as transformers 4 wrote it: rope_theta and rope_scaling apart, torch_dtype.
    Checkpoints from before 2024-09 have `type` where later ones have `rope_type`.
    """
    rope = dict(config["rope_parameters"])
    out = {key: value for key, value in config.items() if key not in ("rope_parameters", "dtype", "layer_types")}
    out["torch_dtype"] = config["dtype"]
    out["transformers_version"] = "4.40.0" if old_type_key else "4.57.0"
    out["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    key = "type" if old_type_key else "rope_type"
    out["rope_scaling"] = None if kind == "default" else {**rope, key: kind}
    return dict(sorted(out.items()))


def expected_rows(model: torch.nn.Module, case: Case) -> tuple[dict, dict]:
    """Ids and logits of a few rows. Of a long row the last positions are kept, and some before."""
    random = generator(case.name + " rows")
    rows, tensors = [], {}
    for index, length in enumerate(case.lengths):
        ids = random.integers(0, VOCABULARY, length).tolist()
        kept = list(range(length)) if length <= 32 else [*range(0, length - 16, 17), *range(length - 16, length)]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]  # (T, V)
        tensors[f"logits.{index}"] = logits[kept]
        rows.append({"ids": ids, "positions": kept})
    return rows, tensors


def expected_greedy(model: torch.nn.Module, name: str, length: int) -> dict:
    """
    generate() without sampling, and log-probability and entropy of each token. The prompt is the
    first of a seeded stream under which no choice is close.
    """
    random = generator(name + " greedy")
    for _ in range(1000):
        prompt = random.integers(0, VOCABULARY, length).tolist()
        ids = torch.tensor([prompt])
        # Without a mask, generate() takes the tokens that are equal to pad_token_id for padding.
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=GREEDY_TOKENS, min_new_tokens=GREEDY_TOKENS, do_sample=False,
            temperature=None, top_p=None, top_k=None, repetition_penalty=1.0, eos_token_id=-1, pad_token_id=0,
            return_dict_in_generate=True, output_logits=True,
        )
        logits = torch.stack(out.logits, 1)[0]  # (n, V)
        best = logits.topk(2, -1).values
        if (best[:, 0] - best[:, 1]).min() < GREEDY_GAP:
            continue
        tokens = out.sequences[0, length:]
        logprobs = logits.log_softmax(-1)
        entropies = -(logprobs.exp() * logprobs).sum(-1)
        chosen = logprobs.gather(-1, tokens[:, None])[:, 0]
        return {"prompt": prompt, "tokens": tokens.tolist(), "logprobs": chosen.tolist(), "entropies": entropies.tolist()}
    raise SystemExit(f"{name}: no prompt without a close choice")


def make_checkpoints() -> None:
    fresh_folder("models")
    for case in CASES:
        folder = fresh_folder("models", case.name)
        model = build_model(case)
        save_checkpoint(model, case, folder)
        rows, tensors = expected_rows(model, case)
        write_json(folder / "expected.json", {"rows": rows, "greedy": expected_greedy(model, case.name, case.prompt)}, indent=None)
        write_tensors(folder / "expected.safetensors", tensors)
