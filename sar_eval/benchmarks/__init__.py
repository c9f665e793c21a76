"""Folds: from verdicts to a benchmark's measures, one file each. `BENCHMARK` in the module is the class."""
