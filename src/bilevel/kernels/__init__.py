"""Compiled kernels: each an implementation of some prox, or of some T, admitted by the test that
compares it with its torch reference, which is also what is recorded for gradients.

Nothing here is compiled by `import bilevel`: a term or a solver asks for its kernel when it is
first used.
"""
