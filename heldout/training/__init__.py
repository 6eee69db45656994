"""Training: the one loop, its models and batches, groups of runs, and whole zoos on many workers.

`zoo_training` decides which runs are missing and hands them out; `train_worker` takes them, and `run_training` trains
a group of them with `training_loop`.
"""
