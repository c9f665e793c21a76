"""Model families: a checkpoint's files, tokenizers, prompts and visual codes."""
