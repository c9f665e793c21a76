"""OneIG-Bench alignment in Chinese: a suite of its own, with the rules of `suites.oneig`."""
