"""What `train_model` and `train_sweep` are made of."""
