"""The method: data sets, models, subset draws, training, evaluation, scores and reports."""
