"""How well source networks suit a data set, judged before any training, from one forward pass of each."""
