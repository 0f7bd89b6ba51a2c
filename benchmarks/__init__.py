"""The whole model timed against llama.cpp and OpenVINO in one run: `make bench-peers` once, then `make bench`.

Reads the package from outside, as a user would; nothing in the package knows of it.
"""
