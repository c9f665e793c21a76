"""mPLUG-large VQA, DPG-Bench's judge network."""
