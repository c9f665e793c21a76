"""Prompt suites: prompt files, and each benchmark's vocabulary, samplers, scoring and question graphs."""
