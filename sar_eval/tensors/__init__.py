"""Safe reading of weight files, downloads from the hub, and the cache of published weights."""
