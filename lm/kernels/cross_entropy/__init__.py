"""Cross-entropy from hidden states: what is asked for (`spec`), the kernels, and the table to choose from."""
