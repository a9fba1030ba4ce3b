"""What the results mean: the hull, the stability database, plots and reports."""
