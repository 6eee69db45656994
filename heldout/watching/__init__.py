"""A training in progress, as others see it: its log, status, rate, failures and TensorBoard scalars."""
