"""Limits of convolutions that are dense layers, each with its reason."""

#: Shorter sums leave lanes of dot products empty, or take less time than to add the lanes up.
SHORTEST_SUM = 64
#: Images multiplied by one pass over the weights: of more, the sums that wait leave each row of the weights too short
#: a stretch to read (`skinny.blocking.BYTES_OF_SUMS`).
IMAGES_OF_STREAM = 32
