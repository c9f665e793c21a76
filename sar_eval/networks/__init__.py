"""Networks of judges and answerers, and the client of a server that runs one."""
