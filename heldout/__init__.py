"""The method: data sets, models, subset draws, training, evaluation, scores and reports."""

__version__ = "0.1.0"
