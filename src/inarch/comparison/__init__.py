"""Methods and grafts compared on the same draws of training data, each tuned with the same number of trials."""
