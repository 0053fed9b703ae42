"""The page that shows a run folder's results. Reads `results.json` alone and never imports PyTorch."""
