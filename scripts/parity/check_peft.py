"""
Adapters that ramify trains and saves, loaded by peft: `python scripts/parity/check_peft.py`, after
`npx tsc -p .`. Compares the logits of peft's model with those that ramify computed, and fails above
1e-4.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-4


def difference(folder: Path) -> float:
    """The largest difference of logits under one adapter."""
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    model = AutoModelForCausalLM.from_pretrained((folder / base).resolve(), dtype=torch.float32, attn_implementation="eager")
    expected = json.loads((folder / "logits.json").read_text())
    ids = torch.tensor([expected["ids"]])
    with torch.no_grad():
        bare = model(ids).logits[0]
        logits = PeftModel.from_pretrained(model, folder).eval()(ids).logits[0]
    assert (logits - bare).abs().max() > 0.01, "the adapter was not read: it changes nothing"
    return (logits.flatten() - torch.tensor(expected["logits"])).abs().max().item()


def main() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["node", str(ROOT / "dist/scripts/parity/write-adapters.js"), name], check=True, timeout=120)
        folders = sorted(Path(name).iterdir())
        results = {folder.name: difference(folder) for folder in folders}
    for adapter, largest in results.items():
        print(f"{adapter:20} largest difference of logits {largest:.1e}")
    if not results or max(results.values()) > TOLERANCE:
        sys.exit(f"more than {TOLERANCE}")


if __name__ == "__main__":
    main()
