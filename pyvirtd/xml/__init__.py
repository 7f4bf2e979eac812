"""XML documents as typed objects: one declaration parses, prints, copies and compares.

`element` holds what a model is declared with, `types` its scalars, `document` the guarded parser, `plan` the compiler.
"""
