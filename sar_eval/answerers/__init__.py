"""Networks that answer questions about images: one file each, the file name is the name."""
