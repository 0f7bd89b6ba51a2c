"""The kernel language: values, the writer of a kernel, what instruction sets differ in, and the compiler."""
