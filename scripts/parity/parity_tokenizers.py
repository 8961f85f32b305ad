"""
Three small tokenizers in the form of those that people use: byte-level BPE with Qwen's split and
NFC; byte-level BPE with Llama 3's split, ignore_merges and a template that adds the first token;
and the SentencePiece-like BPE of Llama 2 with byte fallback. A fourth is the last one as newer
conversions write it, with a Metaspace pre-tokenizer that marks only the first word.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from parity_common import FIXTURES, fresh_folder, write_json
from parity_samples import plain_strings, training_lines

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
VOCABULARY = 1200

QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_pad|>"]
QWEN_PLAIN = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
LLAMA3_SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
                  "<|python_tag|>"]


def byte_level(numbers: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS + numbers + REST), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train(tokenizer: Tokenizer, **options) -> None:
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, show_progress=False, **options)
    tokenizer.train_from_iterator(training_lines(), trainer)


def qwen() -> Tokenizer:
    tokenizer = byte_level(r"\p{N}")
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    train(tokenizer, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in QWEN_SPECIAL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in QWEN_PLAIN])
    return tokenizer


def llama3() -> Tokenizer:
    tokenizer = byte_level(r"\p{N}{1,3}")
    train(tokenizer, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    document = json.loads(tokenizer.to_str())
    document["model"]["ignore_merges"] = True
    # Words of the vocabulary that no merge makes: what ignore_merges is for.
    entries = document["model"]["vocab"]
    for word in ["Ġzymurgy", "Ġ1234", "quixotry"]:
        entries[word] = len(entries)
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in LLAMA3_SPECIAL])
    begin = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(
            single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
            special_tokens=[("<|begin_of_text|>", begin)],
        ),
    ])
    return tokenizer


def llama2(first_word_only: bool) -> Tokenizer:
    """Trained word by word like SentencePiece, then given the normalizer that Llama 2 has."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    own = ["<unk>", "<s>", "</s>"]
    train(tokenizer, special_tokens=own + [f"<0x{byte:02X}>" for byte in range(256)], limit_alphabet=250)
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [
        {**token, "normalized": False} for token in document["added_tokens"] if token["content"] in own
    ]
    tokenizer = Tokenizer.from_str(json.dumps(document))
    if first_word_only:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer = without_pre_tokenizer(tokenizer)
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
    ])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def without_pre_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    document = json.loads(tokenizer.to_str())
    document["pre_tokenizer"] = None
    return Tokenizer.from_str(json.dumps(document))


TOKENIZERS = {
    "qwen": (qwen, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}),
    "llama3": (llama3, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}),
    "llama2": (lambda: llama2(False), {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
    "llama2-first": (lambda: llama2(True), {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
}


def plain_twin(tokenizer: Tokenizer) -> Tokenizer:
    """The same without added tokens: whatever a text spells, it is text."""
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = []
    return Tokenizer.from_str(json.dumps(document))


def save_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Writes the folder as transformers saves it; tokenizer.json without blanks, it is long."""
    build, tokens = TOKENIZERS[name]
    folder = fresh_folder("tokenizers", name)
    fast = PreTrainedTokenizerFast(tokenizer_object=build(), clean_up_tokenization_spaces=False, **tokens)
    fast.save_pretrained(folder)
    compact(folder / "tokenizer.json")
    return fast


def compact(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def expected_strings(fast: PreTrainedTokenizerFast) -> list[dict]:
    """Ids of plain strings, and the text that the ids decode to."""
    plain = plain_twin(fast.backend_tokenizer)
    rows = []
    for text in plain_strings():
        ids = plain.encode(text, add_special_tokens=False).ids
        rows.append({"text": text, "ids": ids, "decoded": plain.decode(ids, skip_special_tokens=False)})
    return rows


def make_tokenizers() -> None:
    fresh_folder("tokenizers")
    for name in TOKENIZERS:
        fast = save_tokenizer(name)
        write_json(FIXTURES / "tokenizers" / name / "strings.json", expected_strings(fast), indent=None)
