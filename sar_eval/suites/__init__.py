"""Prompt suites: reading prompt files, and the words, samplers and question graphs of each benchmark."""
