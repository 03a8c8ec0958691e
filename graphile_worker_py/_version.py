"""The version, in a room of its own, so that those below the package's own names can tell it too."""

__version__ = "0.1.0"
