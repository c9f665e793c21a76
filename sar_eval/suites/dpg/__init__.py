"""DPG-Bench's prompts and question graphs (Hu et al., ELLA, arXiv 2403.05135)."""
