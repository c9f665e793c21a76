"""Where pictures come from, one file a kind; each lists its units ahead and reads some of them."""
