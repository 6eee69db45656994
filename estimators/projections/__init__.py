"""Random projections of gradients that keep their inner products on average.

From the bottom upwards; each line uses those above it.

    random_signs          random bits by place, the same at any time and in any order
    sketches              [B, P] -> [B, d]: signs, Hadamard transform, sparse signs, coordinates
    projected_gradients   projected gradients of a target's examples, by those or layer by layer from both sides
"""
