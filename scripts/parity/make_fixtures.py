"""
Remakes every fixture under test/fixtures/parity: `python scripts/parity/make_fixtures.py`, or with
the names of parts to remake only those. Seeded: a second run changes nothing.
"""

import sys

import torch
import transformers

from parity_checkpoints import make_checkpoints
from parity_conversations import make_conversations
from parity_gradients import make_gradients
from parity_rope import make_rope
from parity_tokenizers import make_tokenizers

PARTS = {"models": make_checkpoints, "gradients": make_gradients, "rope": make_rope, "tokenizers": make_tokenizers,
         "conversations": make_conversations}


def main() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
        print(f"made {name}")


if __name__ == "__main__":
    main()
