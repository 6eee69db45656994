"""Input Jacobians J = df/dx of single examples: how sensitive a network is to its input, at each of them.

    function = functions.of(model, images)                             # checked on the first images
    measurer = measuring.Measurer(function, metrics=("jacobian", "jacobian_operator_norm"),
                                  normalisations=("none", "softmax"), places={"shift": places.Shifts()})
    statistics = measurer.measure((images, labels))                    # as often as wanted, compiled once
    summaries.summarise(statistics.column("jacobian_operator_norm", "none").values, statistics.ids)

Sources: Gamba, Azizpour & Bjorkman (2023, arXiv:2301.12309); Gamba et al. (2023, arXiv:2209.10080). f are logits
[B, K] of a model that is not training, x inputs of D numbers; derivatives are in logits, or in what these are
normalised to, per unit of the input.

From the bottom upwards; each line uses those above it.

    normalisations   what of the logits is differentiated: f, softmax, log-softmax, cross-entropy, or the label's entry
    keys             random numbers by seed, purpose and example
    batching         batches of a size that stays
    functions        what is differentiated by its inputs, checked
    pooling          the derivative of max pooling, from places that are found once
    linearised       J v and J^T u as often as wanted, from one forward pass
    gram             J J^T from K backward passes by the input
    spectra          all singular values under every normalisation, from J J^T
    lanczos          one eigenvalue of each example's matrix by products, with a certificate
    operator_norms   the largest singular value, for many outputs
    hutchinson       Frobenius norms by random signs, with standard errors
    input_hessian    eigenvalues and Frobenius norms of Hessians by the input
    tangents         changes of outputs and gradients over slight changes of colour
    layer_bounds     an upper bound of the Lipschitz constant, operation by operation
    places           neighbourhoods of an example, and paths away from it
    averages         one number from values around an example
    pointwise        metrics of points
    measuring        any number of metrics, normalisations and places in one pass, compiled once
    summaries        the empirical Lipschitz constant
"""
