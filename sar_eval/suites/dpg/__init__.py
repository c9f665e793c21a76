"""DPG-Bench's prompts, question graphs and scoring (Hu et al., ELLA, arXiv 2403.05135)."""
