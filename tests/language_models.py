"""A tiny Qwen2 language model with random weights, as Qwen2.5's repository looks."""

import json
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

TEXTS = ["a photo of two red cubes, and a blue ring", "It's a cat's 12th drawing!", "three green discs"]
WORDS_OF_QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PADDED = 128  # its rows are padded to a multiple of this


def write_language_model(folder: Path, *, tied: bool = True) -> Path:
    """Byte-level BPE with three special tokens; an embedding with more rows than the tokenizer has ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    folder.mkdir(parents=True)
    trained.model.save(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    lines = (folder / "merges.txt").read_text().splitlines()[1:]
    tokenizer = Qwen2Tokenizer(vocabulary, [tuple(line.split(" ")) for line in lines])
    tokenizer.add_special_tokens({"extra_special_tokens": WORDS_OF_QWEN})
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    _model(-(-len(tokenizer) // PADDED) * PADDED, tied).save_pretrained(folder)
    return folder


def _model(rows: int, tied: bool) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=rows,
        hidden_size=128,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
    )
    return Qwen2ForCausalLM(config)
