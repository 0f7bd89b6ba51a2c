"""The waist: text goes down to ids and comes back, a request at a time.

`model.load` opens a model, `model.Model` is one, `run` is a request between text and engine, `runner` the thread that
steps an engine for many, `estimate` the memory a model will take. Importing this package loads nothing; import the
module that is needed.
"""
