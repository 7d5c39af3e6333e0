"""Limits of convolutions that are dense layers, each with its reason."""

#: Shorter sums fill no vector of dot products. (Longer ones are 2 to 5 times faster so from 8 images on, at one image
#: up to a microsecond slower; but the number of images must not decide.)
SHORTEST_SUM = 16
#: Images multiplied by one pass over the weights: of more, the sums that wait leave each row of the weights too short
#: a stretch to read (`skinny.blocking.BYTES_OF_SUMS`).
IMAGES_OF_STREAM = 32
