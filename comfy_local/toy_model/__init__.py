"""A text-to-image model of 5 MB that draws coloured shapes, for machines that have no model yet."""
