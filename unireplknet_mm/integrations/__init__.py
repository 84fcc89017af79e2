"""Bridges to other libraries, one module each. None is imported with the package: import what is needed."""
