"""Training: data on its way into a net, the loop, metrics, and what is needed to go on after a stop."""
