"""HPSv3 on transformers' Qwen2-VL (Ma et al., arXiv 2508.03789; package hpsv3 1.0.0)."""
