"""The hand-written Triton: the primitives, and the rows of a mixture of softmaxes."""
