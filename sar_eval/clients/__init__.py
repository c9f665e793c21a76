"""Clients of HTTP servers: one deadline, retries, limits of rate and length, and no key in any message."""
