"""Training entrypoints: the checkpoints that sar-eval compares can be made by sar-eval.

`scenes` draws data of the demo world, `tokenizer` fits the visual tokenizer, `tokenize` turns
images and captions into token shards, `pretrain` and `sft` fit the decoder.
"""
