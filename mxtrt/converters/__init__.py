"""Converters by family: one function for each operator.

Adding an operator means adding one function here; see `mxtrt.registry`.
"""
