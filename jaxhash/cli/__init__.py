"""The command `jaxhash`: building and querying collections of images or vectors, and the pages that show them.

`jaxhash.__main__` parses the command line and imports from here what a command needs, when it runs.
"""
