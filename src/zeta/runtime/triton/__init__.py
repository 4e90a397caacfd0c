"""The hand-written Triton: the primitives, the softmax of a formula, and the rows of a mixture."""
