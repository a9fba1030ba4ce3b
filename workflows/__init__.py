"""What to compute: intake, screening and the calculation graphs."""
