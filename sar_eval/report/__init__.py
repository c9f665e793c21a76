"""Write a run's HTML report."""
