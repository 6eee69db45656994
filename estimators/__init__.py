"""Attribution estimators: functions of (model, loss, arrays). They know neither zoo nor heldout.

From the bottom upwards; each line uses those above it.

    parameters      a model's trainable variables by name
    losses          losses and measured outputs of single examples
    targets         a model with its parameters, loss and measured output: what is differentiated
    examples        inputs and labels, read in batches
    derivatives/    gradients of single examples
    curvature/      curvature of the training objective, and its damped inverse
"""
