"""Limits of the products of unpacked operands, each with its reason."""

#: Rows of A and columns of B at least: a register tile, one vector wide, of any dtype and CPU level.
FEWEST_ROWS, FEWEST_COLUMNS = 6, 16
#: Operations up to which packing takes longer than reading rows of B that lie apart, and elements of B up to which they
#: come from L2.
MOST_WORK, MOST_OF_B = 1 << 24, 1 << 17
#: Fewer columns make tiles one vector wide, whose six sums wait for each other: up to so many operations.
WIDE, MOST_WORK_OF_NARROW = 32, 1 << 20
