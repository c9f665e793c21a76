"""OneIG-Bench text in English: a suite of its own, with the rules of `suites.oneig`."""
