"""The waist: the one room where text becomes ids and ids become text.

`model.load` opens a `model.Model`; `keywords` is the table of sampling knobs; `run` is one request between text and
engine; `results` what a request gives; `runner` the thread that steps an engine for many callers; `estimate` the memory
that a model will take. Importing this package loads nothing; import the module that you need.
"""
