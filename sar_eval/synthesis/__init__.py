"""Mass synthesis: from a file of prompts to a filtered, ranked, deduplicated set of pictures."""
