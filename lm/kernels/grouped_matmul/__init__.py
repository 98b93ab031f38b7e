"""Rows times the matrices of their groups: what is asked for (`spec`), the kernels, and the table to choose from."""
