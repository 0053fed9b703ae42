"""What came out of the trials: ledger, run folder, metrics, intervals, paired tests. Never imports PyTorch."""
