"""Benchmarks: rules, folds and suite makers, one file each. `BENCHMARK` in the module is the class."""
