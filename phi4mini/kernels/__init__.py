"""Kernels: one numeric operation a file, written in Python in a small staged vector language, compiled for the CPU at
hand.

lang/ is the language and its compiler, threads/ runs programs of kernels. Knows storage formats; knows nothing of Phi.
"""
