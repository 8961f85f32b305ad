"""
What the parity scripts share: where fixtures go, seeded random numbers, and files written the same
way every time. numpy's generator and not torch's makes the weights, because its stream is fixed
across versions.
"""

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

FIXTURES = Path(__file__).resolve().parents[2] / "test" / "fixtures" / "parity"


def generator(name: str) -> np.random.Generator:
    """Random numbers that depend on the name alone."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def fresh_folder(*parts: str) -> Path:
    """An empty folder under the fixtures."""
    folder = FIXTURES.joinpath(*parts)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write_json(path: Path, value, indent: int | None = 1) -> None:
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: dict) -> None:
    """float32 and int tensors as safetensors; keys in the order given."""
    arrays = {}
    for name, tensor in tensors.items():
        array = tensor.detach().cpu().numpy() if isinstance(tensor, torch.Tensor) else tensor
        arrays[name] = np.ascontiguousarray(array.astype(np.float32))
    save_file(arrays, str(path))
    path.chmod(0o644)


def fill_weights(model: torch.nn.Module, name: str) -> None:
    """
    Weights under which every part of the model matters: logits of size one or two, attention that
    is not uniform, norms and biases that are not their neutral values. The initialisation of the
    library would make logits near 0, and errors would hide in them.
    """
    random = generator(name)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            values = random.standard_normal(tuple(parameter.shape))
            if "norm" in key:
                values = 1 + 0.25 * values
            elif key.endswith("bias"):
                values = 0.3 * values
            elif "embed_tokens" not in key:
                values = 1.5 * values / np.sqrt(parameter.shape[-1])
            elif getattr(model.config, "tie_word_embeddings", False):
                values = 0.4 * values
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))
