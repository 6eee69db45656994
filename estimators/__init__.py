"""Attribution estimators: functions of (model, loss, arrays). They know neither zoo nor heldout.

From the bottom upwards; each line uses those above it.

    parameters      a model's trainable variables by name
    losses          losses and measured outputs of single examples
    sharding        batches over the replicas of a tf.distribute strategy
    targets         a model with its parameters, loss and measured output: what is differentiated
    examples        inputs and labels, read in batches
    derivatives/    gradients of single examples
    curvature/      curvature of the training objective, and its damped inverse
    projections/    gradients of single examples, projected at random
    score_matrix    scores [num_train, num_test] with their labels, sign and unit
    solving         what settings of a solver turn into a solver
    solvers         solvers by name, with their settings
    artifacts       files of factors and score matrices; the only module that touches files
    cholesky        factors of Gram matrices, which say when a matrix is singular
    gradient_products    gradients of training examples times given vectors, streamed
    sparse_products      the same where gradients have few numbers that are not zero
    fitted_curvature     the inverse of a curvature with the gradients that it is applied to
    influence_functions  what leaving one example out would do
    group_effects        what leaving groups out would do, to first and second order
    gradient_similarity  inner products and cosines of gradients
    tracin               their sums over checkpoints
    early_scores         EL2N and GraNd
    representer_points   a prediction as a sum over training examples
    trak_features, trak  attribution by linearised models with projected gradients
    jacobian/            norms and spectra of input Jacobians, at examples and around them
    ntk/                 the empirical tangent kernel of outputs; their Jacobian by weights, formed or by products
    linearized/          networks linear in their weights: training at any time, all deletions at once
    unique_information/  how much leaving examples out changes weights, predictions and losses
"""
