"""The command `jaxhash`: building and querying collections of images or vectors, and the pages that show them.

`jaxhash.__main__` parses the command line. A command imports its modules when it runs.
"""
