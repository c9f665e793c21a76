"""WISE's prompts as of 2025; the rules are in `suites.wise`."""
