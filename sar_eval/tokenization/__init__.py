"""From pictures with captions to shards of visual tokens: what `train tokenize` and `train inspect` do."""
