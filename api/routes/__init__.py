"""The HTTP routes, one module per resource.

Each module has a class that takes what its views need, and whose `blueprint()` lists their paths. The descriptions of
the responses for the OpenAPI document stand above the class.
"""
