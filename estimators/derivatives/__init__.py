"""Gradients of single examples for any model, from one backward pass.

From the bottom upwards; each line uses those above it.

    layouts         kernels as matrices
    contributions   what one operation adds to the gradients of single examples, formed or in factors
    capture         where in a model parameters meet examples
    rules           for each kind of operation, its contribution
    passes          a forward pass with its contributions
    plans           what was proved of a target on a few examples
    per_example     gradients, norms and inner products of whole batches
"""
