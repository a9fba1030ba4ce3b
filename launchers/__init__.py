"""Where and when it runs: LaunchPad, workers, services and the command line."""
