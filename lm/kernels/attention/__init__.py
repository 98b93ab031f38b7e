"""Softmax attention: what is asked for (`spec`), the kernels that compute it, and the table they are chosen from."""
