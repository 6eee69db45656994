"""PyTorch libraries that do what estimators do, run by the Python that has them; nothing of ours imports them."""
