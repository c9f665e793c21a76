"""Rubrics: the text that asks a chat model about a picture, and the rules that read what it replies."""
