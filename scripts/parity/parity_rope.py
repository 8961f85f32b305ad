"""
Inverse frequencies and attention factors of rotary embeddings as transformers computes them, for
the published scalings of real models (a checkpoint small enough to commit has neither their widths
nor their windows) and for every option of yarn.
"""

from transformers import LlamaConfig, Qwen2Config, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from parity_common import FIXTURES, write_json

FAMILIES = {
    "llama": (LlamaConfig, LlamaRotaryEmbedding),
    "qwen2": (Qwen2Config, Qwen2RotaryEmbedding),
    "qwen3": (Qwen3Config, Qwen3RotaryEmbedding),
}
ORIGINAL = "original_max_position_embeddings"
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, ORIGINAL: 8192}
YARN = {"rope_type": "yarn", "factor": 4.0, ORIGINAL: 32768}
YARN_40 = {"rope_type": "yarn", "factor": 40.0, "mscale": 1.0, ORIGINAL: 4096}

# Name, family, head width, theta, window, rope_scaling.
CASES = [
    ("llama-2-7b", "llama", 128, 10000.0, 4096, None),
    ("llama-2-7b, linear", "llama", 128, 10000.0, 16384, {"rope_type": "linear", "factor": 4.0}),
    ("llama-3.1-8b", "llama", 128, 500000.0, 131072, {**LLAMA3, "factor": 8.0}),
    ("llama-3.2-1b", "llama", 64, 500000.0, 131072, {**LLAMA3, "factor": 32.0}),
    ("qwen2.5-0.5b", "qwen2", 64, 1000000.0, 32768, None),
    ("qwen2.5-7b, yarn", "qwen2", 128, 1000000.0, 131072, YARN),
    ("qwen2.5-7b, yarn, window as published", "qwen2", 128, 1000000.0, 32768, YARN),
    ("qwen3-0.6b", "qwen3", 128, 1000000.0, 40960, None),
    ("yarn, old key, window of the config", "qwen3", 128, 1000000.0, 40960, {"type": "yarn", "factor": 4.0}),
    ("yarn, betas", "qwen3", 128, 1000000.0, 131072, {**YARN, "beta_fast": 16, "beta_slow": 2.5}),
    ("yarn, not truncated", "qwen3", 128, 1000000.0, 131072, {**YARN, "truncate": False}),
    ("yarn, attention factor", "qwen3", 128, 1000000.0, 131072, {**YARN, "attention_factor": 0.75}),
    ("yarn, mscale", "llama", 64, 10000.0, 163840, {**YARN_40, "mscale_all_dim": 0.707}),
    ("yarn, one mscale", "llama", 64, 10000.0, 163840, YARN_40),
    ("yarn, one pair wide", "llama", 2, 10000.0, 4096, {"rope_type": "yarn", "factor": 2.0, ORIGINAL: 2048}),
]


def make_rope() -> None:
    cases = []
    for name, family, width, theta, window, scaling in CASES:
        config_class, embedding_class = FAMILIES[family]
        source = {
            "model_type": family,
            "hidden_size": 4 * width,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": width,
            "vocab_size": 8,
            "max_position_embeddings": window,
            "rope_theta": theta,
            "rope_scaling": scaling,
        }
        embedding = embedding_class(config_class.from_dict(dict(source, rope_scaling=scaling and dict(scaling))))
        cases.append(
            {
                "name": name,
                "config": source,
                "attentionFactor": float(embedding.attention_scaling),
                # As doubles, so that every float32 is written exactly.
                "frequencies": embedding.inv_freq.double().tolist(),
            }
        )
    write_json(FIXTURES / "rope.json", cases)
