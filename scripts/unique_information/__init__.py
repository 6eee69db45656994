"""Parts of the programs about the unique information of samples; none imports TensorFlow when it is imported."""
