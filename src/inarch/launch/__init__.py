"""Running trials: here, on this machine."""
