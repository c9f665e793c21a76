"""Files on disk: Arrow schemas, run folders, training shards. The only user of pyarrow."""
