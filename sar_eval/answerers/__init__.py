"""Networks that answer questions about pictures: one file each, the file name is the name."""
