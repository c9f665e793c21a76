"""What a checkpoint is: its files, prompts, visual codes and pixels."""
