"""Folds: from verdicts to a benchmark's metrics, one file each. `BENCHMARK` in the module is the class."""
