"""The mathematics, from measures to numbers: intervals, paired differences, power, many tests at once."""
