"""LongText-Bench in Chinese: a suite of its own, with the rules of `suites.longtext`."""
