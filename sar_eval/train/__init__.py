"""Training of the demo checkpoints.

`scenes` renders training images, `tokenizer` trains the visual tokenizer, `tokenize` converts captioned
images to token shards, `pretrain` and `sft` train the decoder.
"""
