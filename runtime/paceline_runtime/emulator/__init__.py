"""An engine without a model: the routes, streaming, drain and metrics of the real one, at a constant step
time.

For tests of everything around an engine where there is no GPU to spare. It says that it is emulated
wherever a person or a program could take it for real: the model card, /paceline/info, the metrics and the
log.
"""
