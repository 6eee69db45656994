"""Checks of `benchmarks.estimator_accuracy`: each holds estimators against truth that uses nothing of theirs.

rows         one line of the table
networks     a small network in two precisions, with its gradients and curvatures written out
derivatives  gradients of single examples by kind of layer; products with curvatures
solving      influence functions by every solver, and their golden values
scores       the other estimators
leaving_out  all of them against models that were fitted again
"""
