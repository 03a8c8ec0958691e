"""For frameworks: a module or a package for each, which needs the extra of its name."""
