"""Kernels: one numeric operation a file, written in Python in a small staged vector language, compiled for the CPU at
hand.

lang/kernel.py is the text, lang/build.py turns it into machine code, threads/pool.py calls it. Knows storage formats;
knows nothing of Phi.
"""
