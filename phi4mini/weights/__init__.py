"""Files <-> arrays: safetensors, GGUF and the hub in, one packed and mapped store out. It knows no text, no kernel.

`load.ensure_store` turns any model name into a store, `store.open_store` turns a store into `Weights`. Importing this
package loads nothing; import the module that is needed.
"""
