"""Networks of judges and answerers, and the chat server that runs one."""
